//! Many containers that call unshare as fast as the machine lets them: is every count exact?

use std::time::Instant;

use anyhow::{Result, ensure};

use super::{ended, launch};
use crate::context::{Context, eventually};

/// Prints what became of `calls` calls in each of `containers`.
pub fn table(context: &Context, containers: u32, calls: u32) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let names: Vec<_> = (0..containers).map(|one| format!("flood{one}")).collect();
    let count = calls.to_string();
    let start = Instant::now();
    for name in &names {
        launch(context, name, &["unshare-loop", "uts", &count])?;
    }
    for name in &names {
        let said = ended(context, name)?;
        ensure!(
            said == format!("{calls} calls, 0 refused"),
            "{name}: {said}"
        );
    }
    let took = start.elapsed().as_secs_f64();
    let stage = |stage| -> Result<f64> {
        let labels = [("ring", "events"), ("stage", stage)];
        Ok(context.metrics()?.sum("paddock_records_total", &labels))
    };
    eventually("all that was submitted is read", || {
        Ok((stage("submitted")? - stage("delivered")?).abs() < 0.5)
    })?;
    let metrics = context.metrics()?;
    let exact = names
        .iter()
        .filter(|name| {
            let labels = [
                ("container", name.as_str()),
                ("syscall", "unshare"),
                ("namespace", "uts"),
                ("outcome", "allowed"),
            ];
            let counted = metrics.sum("paddock_container_namespace_calls_total", &labels);
            (counted - f64::from(calls)).abs() < 0.5
        })
        .count();
    let parts = [
        "submitted",
        "lost_ring_full",
        "lost_pressure",
        "lost_rate_limited",
    ];
    let values = parts.map(|part| stage(part).unwrap_or(f64::NAN));
    let seen = stage("seen")?;
    println!("\n{containers} containers, {calls} calls of unshare each, {took:.1} s");
    println!("containers whose count is their own: {exact} of {containers}");
    println!("records seen        {seen:>9}");
    for (part, value) in parts.iter().zip(values) {
        println!("{part:<19} {value:>9}");
    }
    let rest = seen - values.iter().sum::<f64>();
    println!("unaccounted for     {rest:>9}");
    for name in &names {
        context.ok(&["rm", name])?;
    }
    context.stop_agent()?;
    ensure!(exact == names.len() && rest.abs() < 0.5, "a count is wrong");
    Ok(())
}
