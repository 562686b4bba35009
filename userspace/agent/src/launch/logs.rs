//! A container's log as it lies on disk: the older file, then the newer.

use std::{io, sync::Arc};

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
        for name in ["log.jsonl.1", "log.jsonl"] {
            match File::open(dir.join(name)).await {
                Ok(file) => {
                    if !send(file, &mut sender).await {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return sender.abort(error),
            }
        }
    });
    Body::new(body)
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
