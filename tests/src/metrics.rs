//! A scrape, read as text: enough PromQL for a test is "this series, this value".

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Context as _, Result};

#[derive(Clone, Debug)]
pub struct Metrics(pub String);

impl Metrics {
    /// `GET PATH` on `address`; the whole answer with its head.
    pub fn get(address: &str, path: &str) -> Result<String> {
        let mut stream =
            TcpStream::connect(address).with_context(|| format!("connect {address}"))?;
        stream.set_read_timeout(Some(Duration::from_mins(1)))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
        )?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    }

    pub fn scrape(address: &str) -> Result<Self> {
        let answer = Self::get(address, "/metrics")?;
        let body = answer.split_once("\r\n\r\n").context("no body")?.1;
        Ok(Self(body.to_owned()))
    }

    /// Value of the one series of `name` whose labels contain all of `labels`.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.series(name, labels).next()
    }

    /// Sum over all series of `name` whose labels contain all of `labels`.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.series(name, labels).sum()
    }

    fn series(&self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = f64> {
        self.0.lines().filter_map(move |line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (found, set) = series.split_once('{').unwrap_or((series, ""));
            let all = labels
                .iter()
                .all(|(label, value)| set.contains(&format!("{label}=\"{value}\"")));
            (found == name && all).then(|| value.parse().ok())?
        })
    }
}
