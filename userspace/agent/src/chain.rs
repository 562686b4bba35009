//! An error with its causes, for logs and answers: the one place that prints a source.

use std::io;

/// The whole chain in one line, each cause once.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = match cause
            .downcast_ref::<io::Error>()
            .and_then(io::Error::raw_os_error)
        {
            Some(code) => nix::errno::Errno::from_raw(code).desc().to_owned(),
            None => cause.to_string(),
        };
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        source = cause.source();
    }
    text
}
