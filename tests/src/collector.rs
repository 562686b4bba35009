//! An HTTP receiver of the test's own: what was posted to it, and an answer as it is told to.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

/// How it treats who comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Takes it: 200.
    Polite,
    /// 503, having read it.
    Busy,
    /// Reads it and says nothing.
    Silent,
}

/// What was posted, and how that was answered.
#[derive(Clone, Debug)]
pub struct Posted {
    pub path: String,
    pub content_type: String,
    pub body: Value,
    pub manner: Manner,
}

/// Its port is closed when it is dropped, and those who wait for an answer are left.
#[derive(Debug)]
pub struct Collector {
    pub address: String,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    manner: Mutex<Manner>,
    posted: Mutex<Vec<Posted>>,
    /// Connections without an answer.
    waiting: Mutex<Vec<TcpStream>>,
    ends: AtomicBool,
}

impl Collector {
    /// On `address`, with port 0 on a free one.
    pub fn start(address: &str, manner: Manner) -> Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?.to_string();
        let shared = Arc::new(Shared {
            manner: Mutex::new(manner),
            posted: Mutex::default(),
            waiting: Mutex::default(),
            ends: AtomicBool::new(false),
        });
        let of_thread = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if of_thread.ends.load(Ordering::Relaxed) {
                    return;
                }
                // Who breaks off comes again.
                let _ = of_thread.receive(client);
            }
        });
        Ok(Self {
            address,
            shared,
            thread: Some(thread),
        })
    }

    pub fn posted(&self) -> Vec<Posted> {
        lock(&self.shared.posted).clone()
    }

    /// From now on; who waits for an answer is left without.
    pub fn becomes(&self, manner: Manner) {
        *lock(&self.shared.manner) = manner;
        lock(&self.shared.waiting).clear();
    }

    /// Closed; all that was posted.
    pub fn closed(mut self) -> Vec<Posted> {
        self.end();
        self.posted()
    }

    fn end(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        self.shared.ends.store(true, Ordering::Relaxed);
        // It waits for somebody.
        drop(TcpStream::connect(&self.address));
        drop(thread.join());
        lock(&self.shared.waiting).clear();
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    /// One request; a connection is used for one.
    fn receive(&self, client: TcpStream) -> Result<()> {
        client.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut reader = BufReader::new(client);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let path = line.split(' ').nth(1).context("no path")?.to_owned();
        let (mut length, mut content_type) = (0, String::new());
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim().split_once(':') else {
                break;
            };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse()?;
            } else if name.eq_ignore_ascii_case("content-type") {
                value.trim().clone_into(&mut content_type);
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let body = serde_json::from_slice(&body)?;
        let manner = *lock(&self.manner);
        lock(&self.posted).push(Posted {
            path,
            content_type,
            body,
            manner,
        });
        let mut client = reader.into_inner();
        let status = match manner {
            Manner::Polite => "200 OK",
            Manner::Busy => "503 Service Unavailable",
            Manner::Silent => {
                lock(&self.waiting).push(client);
                return Ok(());
            }
        };
        write!(
            client,
            "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )?;
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
