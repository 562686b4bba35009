//! Keeps a zygote: notices its death, replaces it, exempts the new one in the kernel half.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use paddock_runtime::{
    spec::LaunchSpec,
    zygote::{Error, Zygote},
};
use tokio::time::sleep;

use crate::{kernel::Kernel, readiness, shared::Shared};

/// Between two tries, when a new one cannot be made.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Keeper {
    zygote: Mutex<Option<Arc<Zygote>>>,
}

impl Keeper {
    pub(crate) fn new(zygote: Zygote) -> Self {
        Self {
            zygote: Mutex::new(Some(Arc::new(zygote))),
        }
    }

    /// Blocking. A zygote that turns out to be dead is replaced, once.
    pub(crate) fn launch(&self, kernel: &Kernel, spec: &LaunchSpec) -> Result<i32, Error> {
        let zygote = self.living(kernel)?;
        match zygote.launch(spec) {
            Err(Error::Died) => self.living(kernel)?.launch(spec),
            other => other,
        }
    }

    /// Ends it and waits for that. Monitors go on.
    pub(crate) fn end(&self) {
        let zygote = self.lock().take();
        drop(zygote);
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.lock()
            .as_ref()
            .map(|zygote| zygote.pid().cast_unsigned())
    }

    /// The one that lives, else a new one. Blocking.
    fn living(&self, kernel: &Kernel) -> Result<Arc<Zygote>, Error> {
        let mut guard = self.lock();
        let zygote = guard.as_ref().ok_or(Error::Died)?;
        if zygote.is_alive() {
            return Ok(Arc::clone(zygote));
        }
        let dead = zygote.pid().cast_unsigned();
        tracing::warn!("the zygote (pid {dead}) was killed; starting another");
        let new = Arc::new(Zygote::spawn()?);
        // Set-up of containers would be judged as theirs, but a launch must not fail for it.
        for (result, what) in [
            (kernel.unexempt(dead), "forget the dead zygote"),
            (
                kernel.exempt(new.pid().cast_unsigned()),
                "exempt the new zygote",
            ),
        ] {
            if let Err(error) = result {
                tracing::error!("cannot {what}: {}", crate::chain::chain(&error));
            }
        }
        *guard = Some(Arc::clone(&new));
        Ok(new)
    }

    fn pidfd(&self) -> Option<OwnedFd> {
        let guard = self.lock();
        guard.as_ref()?.pidfd().as_fd().try_clone_to_owned().ok()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Zygote>>> {
        self.zygote.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Replaces the zygote whenever it dies, until the agent ends.
pub(crate) async fn keep(shared: Arc<Shared>) {
    let mut shutdown = shared.shutdown.subscribe();
    loop {
        let Some(pidfd) = shared.zygote.pidfd() else {
            return;
        };
        let Ok(pidfd) = readiness::watch(pidfd) else {
            tracing::error!("cannot watch the zygote; a launch will notice its death");
            return;
        };
        tokio::select! {
            _ = pidfd.readable() => {}
            _ = shutdown.wait_for(|down| *down) => return,
        }
        let keeper = Arc::clone(&shared);
        let replaced =
            tokio::task::spawn_blocking(move || keeper.zygote.living(&keeper.kernel).map(drop));
        if let Ok(Err(error)) = replaced.await {
            tracing::error!(
                "cannot start another zygote: {}",
                crate::chain::chain(&error)
            );
            sleep(PAUSE).await;
        }
    }
}
