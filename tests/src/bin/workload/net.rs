//! Talking and being talked to, counted.

use std::{
    collections::BTreeMap,
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::libc::EPERM;

/// Connects and reads a byte, or sends one without connecting, so often.
pub(crate) fn talk(protocol: &str, peer: SocketAddr, count: u32) -> Result<()> {
    let any = if peer.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let once = || -> io::Result<()> {
        if protocol == "udp" {
            return UdpSocket::bind(any)?.send_to(b"x", peer).map(drop);
        }
        TcpStream::connect(peer)?.read_exact(&mut [0])
    };
    let mut refused = 0;
    for _ in 0..count {
        match once() {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(EPERM) => refused += 1,
            Err(error) => return Err(error).context("talk"),
        }
    }
    println!("{count} calls, {refused} refused");
    Ok(())
}

/// Sends datagrams of so many bytes to itself, each taken before the next one is sent.
pub(crate) fn packets(bytes: usize, count: u32) -> Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let own = socket.local_addr()?;
    let mut buffer = vec![0; bytes];
    for _ in 0..count {
        socket.send_to(&buffer, own).context("send")?;
        socket.recv(&mut buffer).context("receive")?;
    }
    Ok(())
}

/// Listens at one port of both loopbacks, which it says, until the path is there: answers each
/// connection with a byte, keeps it, and sends back what comes by it. Says how many connections and
/// datagrams it had of whom.
pub(crate) fn hear(end: &str) -> Result<()> {
    let four = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = four.local_addr()?.port();
    let listeners = [four, TcpListener::bind((Ipv6Addr::LOCALHOST, port))?];
    let sockets = [
        UdpSocket::bind((Ipv4Addr::LOCALHOST, port))?,
        UdpSocket::bind((Ipv6Addr::LOCALHOST, port))?,
    ];
    for listener in &listeners {
        listener.set_nonblocking(true)?;
    }
    for socket in &sockets {
        socket.set_nonblocking(true)?;
    }
    println!("{port}");
    let mut heard: BTreeMap<(&str, IpAddr), u32> = BTreeMap::new();
    let mut open = Vec::new();
    loop {
        let ends = Path::new(end).exists();
        for listener in &listeners {
            while let Ok((mut stream, peer)) = listener.accept() {
                *heard.entry(("tcp", peer.ip())).or_default() += 1;
                stream.set_nonblocking(true)?;
                // Who has gone reads nothing.
                let _ = stream.write_all(b"x");
                open.push(stream);
            }
        }
        for socket in &sockets {
            while let Ok((_, peer)) = socket.recv_from(&mut [0; 8]) {
                *heard.entry(("udp", peer.ip())).or_default() += 1;
            }
        }
        for stream in &mut open {
            let mut byte = [0];
            if stream.read(&mut byte).is_ok_and(|read| read == 1) {
                let _ = stream.write_all(&byte);
            }
        }
        if ends {
            break;
        }
        thread::sleep(Duration::from_millis(1));
    }
    for ((protocol, peer), count) in heard {
        println!("{protocol} {peer} {count}");
    }
    Ok(())
}

/// Sends datagrams by one socket that is not connected, and waits for each one's answer.
pub(crate) fn ask(peer: SocketAddr, count: u32) -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let mut answered = 0;
    for _ in 0..count {
        socket.send_to(b"x", peer).context("send")?;
        if socket.recv_from(&mut [0; 8]).is_ok() {
            answered += 1;
        }
    }
    println!("{count} asked, {answered} answered");
    Ok(())
}
