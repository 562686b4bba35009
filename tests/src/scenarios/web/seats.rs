//! Nobody keeps others out by silence, by a head that never ends, or by not reading.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use super::files::{Answer::Status, Files};
use crate::{context::Context, metrics::Metrics, prometheus::Prometheus, runner::Scenario};

pub(super) const ALL: &[Scenario] =
    &[Scenario::new("web::nobody_keeps_the_seats", nobody_keeps_the_seats).alone()];

/// As the agent has it.
const SEATS: usize = 32;
const HEAD: Duration = Duration::from_secs(10);
/// Until shortly before its end somebody sends a byte a second.
const DRIP: Duration = Duration::from_secs(8);
/// A slow machine's.
const MORE: Duration = Duration::from_secs(20);

fn nobody_keeps_the_seats(context: &Context) -> Result<()> {
    if !Prometheus::is_here()? {
        return Ok(());
    }
    let files = Files::new(context)?;
    context.start_agent(&["--detach-on-exit"])?;
    let address = context.address()?;
    let url = format!("http://{address}/healthz");
    let connect = || {
        let stream = TcpStream::connect(&address)?;
        stream.set_read_timeout(Some(HEAD + MORE))?;
        Ok::<_, anyhow::Error>(stream)
    };

    // All seats by some who asked and stay: who comes is served, and they are closed.
    let mut idle = Vec::new();
    for _ in 0..SEATS {
        let mut stream = connect()?;
        write!(stream, "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")?;
        let mut answer = [0; 512];
        let count = stream.read(&mut answer)?;
        ensure!(answer[..count].starts_with(b"HTTP/1.1 200"));
        idle.push(stream);
    }
    ensure!(files.get(&url, &["--max-time", "5"])? == Status(200));
    for stream in &mut idle {
        ensure!(stream.read(&mut [0; 16])? == 0, "one is kept");
    }
    drop(idle);

    // All by some who never end their head, a byte at a time: closed in their time; who comes
    // meanwhile is told so by the end of the connection.
    let begun = Instant::now();
    let mut slow = Vec::new();
    for _ in 0..SEATS {
        let mut stream = connect()?;
        write!(stream, "GET /healthz HTTP/1.1\r\nX: ")?;
        slow.push(stream);
    }
    ensure!(matches!(
        files.get(&url, &["--max-time", "6"])?,
        super::files::Answer::Failed(_)
    ));
    while begun.elapsed() < DRIP {
        for stream in &mut slow {
            stream.write_all(b"x")?;
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    for stream in &mut slow {
        ensure!(
            !matches!(stream.read(&mut [0; 16]), Ok(1..)),
            "it was answered"
        );
    }
    let took = begun.elapsed();
    ensure!(took > DRIP && took < HEAD + MORE, "{took:?}");
    ensure!(files.get(&url, &[])? == Status(200));

    let metrics = Metrics::scrape(&address)?;
    let count = |reason| metrics.value("paddock_web_refused_total", &[("reason", reason)]);
    ensure!(count("slow") == Some(32.0), "{:?}", count("slow"));
    ensure!(
        count("full").is_some_and(|count| count >= 1.0),
        "{:?}",
        count("full")
    );

    // A head without end.
    let mut stream = connect()?;
    let line = format!("X-Much: {}\r\n", "x".repeat(1000));
    write!(stream, "GET / HTTP/1.1\r\n")?;
    // Refused before all of it is sent.
    let sent = (0..1000).map(|_| stream.write_all(line.as_bytes()));
    let all = sent.take_while(Result::is_ok).count();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    ensure!(
        all < 1000 || answer.contains(" 431 "),
        "{all} lines: {answer}"
    );
    Ok(())
}
