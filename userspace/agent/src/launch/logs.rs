//! A container's log as it lies on disk, from the oldest file to the newest.

use std::{io, os::unix::fs::MetadataExt as _, path::Path, sync::Arc};

use axum::body::{Body, Bytes};
use http_body_util::channel::{Channel, Sender};
use tokio::{fs::File, io::AsyncReadExt as _};

use crate::{container::Container, shared::Shared};

const CHUNK: usize = 64 * 1024;

/// Its JSON lines as a body, read as fast as the client takes them.
pub(crate) fn stream(shared: &Arc<Shared>, container: &Arc<Container>) -> Body {
    let dir = shared.instance.container_dir(&container.id);
    let (mut sender, body) = Channel::<Bytes, io::Error>::new(2);
    tokio::spawn(async move {
        match kept(&dir).await {
            Ok(files) => {
                for file in files {
                    if !send(file, &mut sender).await {
                        return;
                    }
                }
            }
            Err(error) => sender.abort(error),
        }
    });
    Body::new(body)
}

/// The files, oldest first. Opened from the newest on: one that a rotation moves meanwhile is
/// met again under its next name, and none is passed over.
async fn kept(dir: &Path) -> io::Result<Vec<File>> {
    let mut files = Vec::new();
    let mut seen = Vec::new();
    for number in 0_u32.. {
        let name = match number {
            0 => "log.jsonl".to_owned(),
            number => format!("log.jsonl.{number}"),
        };
        match File::open(dir.join(name)).await {
            Ok(file) => {
                let inode = file.metadata().await?.ino();
                if !seen.contains(&inode) {
                    seen.push(inode);
                    files.push(file);
                }
            }
            // Between a rotation's two steps there is no newest.
            Err(error) if error.kind() == io::ErrorKind::NotFound && number == 0 => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        }
    }
    files.reverse();
    Ok(files)
}

/// `false`: the client is gone.
async fn send(mut file: File, sender: &mut Sender<Bytes, io::Error>) -> bool {
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        match file.read_buf(&mut chunk).await {
            Ok(0) | Err(_) => return true,
            Ok(_) => {
                if sender.send_data(chunk.into()).await.is_err() {
                    return false;
                }
            }
        }
    }
}
