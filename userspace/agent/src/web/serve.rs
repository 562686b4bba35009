//! Serves the pages on TCP: so many at a time, each step within its time, whoever the terms admit.
//!
//! While every seat is taken, connections that wait for their next request are closed and the
//! others after their answer, so that nobody keeps a seat by silence. Who finds none all the same
//! is closed, and counted.

use std::{net::TcpListener as StdListener, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    http::{
        HeaderMap, StatusCode,
        header::{AUTHORIZATION, WWW_AUTHENTICATE},
    },
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, sleep_until, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::{
    Door, Refusal,
    timed::{Phase, State as At, Timed, Told},
};

/// Connections at a time.
pub(super) const SEATS: usize = 32;
/// Of a request's head.
const HEAD_BYTES: usize = 16 << 10;
/// After an accept that failed for want of something (file descriptors).
const PAUSE: Duration = Duration::from_millis(200);

/// Until `shutdown` is true.
pub(crate) async fn serve(
    door: Arc<Door>,
    listener: StdListener,
    router: Router,
    shutdown: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let router = router.layer(from_fn_with_state(Arc::clone(&door), admit));
    let seats = Arc::new(Semaphore::new(SEATS));
    let crowded = watch::Sender::new(false);
    let mut connections = JoinSet::new();
    let mut down = shutdown.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // An error means that the sender is gone: the end, too.
            _ = down.wait_for(|down| *down) => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!("accept: {error}");
                sleep(PAUSE).await;
                continue;
            }
        };
        // Those that ended are not kept.
        while connections.try_join_next().is_some() {}
        crowded.send_replace(seats.available_permits() == 0);
        let seat = timeout(door.times.seat, Arc::clone(&seats).acquire_owned());
        let Ok(Ok(seat)) = seat.await else {
            door.refuse(Refusal::Full);
            continue;
        };
        let guest = Guest {
            door: Arc::clone(&door),
            router: router.clone(),
            crowded: crowded.subscribe(),
            shutdown: shutdown.clone(),
        };
        connections.spawn(async move {
            guest.welcome(stream).await;
            drop(seat);
        });
    }
    while connections.join_next().await.is_some() {}
    Ok(())
}

/// A connection and what it has to know.
struct Guest {
    door: Arc<Door>,
    router: Router,
    crowded: watch::Receiver<bool>,
    shutdown: watch::Receiver<bool>,
}

impl Guest {
    async fn welcome(mut self, stream: TcpStream) {
        let terms = self.door.terms().await;
        let Some(tls) = &terms.tls else {
            return self.serve(stream).await;
        };
        let handshake = TlsAcceptor::from(Arc::clone(tls)).accept(stream);
        let shaken = tokio::select! {
            shaken = timeout(self.door.times.handshake, handshake) => shaken,
            _ = self.shutdown.wait_for(|down| *down) => return,
        };
        match shaken {
            Ok(Ok(stream)) => self.serve(stream).await,
            Ok(Err(error)) => {
                tracing::debug!("TLS: {error}");
                self.door.refuse(Refusal::Handshake);
            }
            Err(_) => self.door.refuse(Refusal::Handshake),
        }
    }

    async fn serve(mut self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let (phase, mut until) = Phase::new(self.door.times);
        let pages = TowerToHyperService::new(self.router);
        let of_request = phase.clone();
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            of_request.serving();
            let (answer, phase) = (pages.call(request), of_request.clone());
            async move {
                let answer = answer.await;
                answer.map(|answer| answer.map(|body| Told { body, phase }))
            }
        });
        let connection = http1::Builder::new()
            .max_buf_size(HEAD_BYTES)
            // Which would run between two requests, too.
            .header_read_timeout(None)
            .serve_connection(TokioIo::new(Timed { stream, phase }), service);
        let mut connection = std::pin::pin!(connection);
        let mut is_last = false;
        loop {
            let (state, end) = *until.borrow_and_update();
            let go = tokio::select! {
                // What a client did wrong is its own trouble.
                _ = connection.as_mut() => return,
                changed = until.changed() => changed.is_err(),
                () = sleep_until(end) => {
                    if state != At::Waiting {
                        self.door.refuse(Refusal::Slow);
                    }
                    return;
                }
                // One that has not asked yet has its one request.
                _ = self.crowded.wait_for(|crowded| *crowded), if !is_last && state != At::Head => true,
                _ = self.shutdown.wait_for(|down| *down), if !is_last => true,
            };
            if go && !is_last {
                is_last = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// In front of every page.
async fn admit(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response {
    let answer = async {
        let terms = door.terms().await;
        let mut answer = match refusal(&door, &terms, request.headers()).await {
            Some(answer) => answer,
            None => next.run(request).await,
        };
        for (name, value) in &terms.headers {
            // What a page says of itself counts for more.
            answer
                .headers_mut()
                .entry(name)
                .or_insert_with(|| value.clone());
        }
        answer
    };
    timeout(door.times.request, answer)
        .await
        .unwrap_or_else(|_| {
            door.refuse(Refusal::Slow);
            (StatusCode::SERVICE_UNAVAILABLE, "not in time\n").into_response()
        })
}

async fn refusal(door: &Door, terms: &super::Terms, headers: &HeaderMap) -> Option<Response> {
    if terms.rate.as_ref().is_some_and(|rate| !rate.take()) {
        door.refuse(Refusal::Rate);
        return Some((StatusCode::TOO_MANY_REQUESTS, "too many requests\n").into_response());
    }
    let users = terms.users.as_ref()?;
    if users.admit(&door.turn, headers.get(AUTHORIZATION)).await {
        return None;
    }
    door.refuse(Refusal::Login);
    let realm = [(WWW_AUTHENTICATE, "Basic realm=\"paddock\"")];
    Some(
        (
            StatusCode::UNAUTHORIZED,
            realm,
            "name and password, please\n",
        )
            .into_response(),
    )
}
