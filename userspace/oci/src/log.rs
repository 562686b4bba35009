//! Where failures are told: stderr, and the file that podman and containerd read them from.

use std::{
    fs::File,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::SystemTime,
};

use crate::{args::LogFormat, error::Error};

#[derive(Debug)]
pub(crate) struct Log {
    file: Option<File>,
    format: LogFormat,
    debug: bool,
}

impl Log {
    pub(crate) fn open(path: Option<&Path>, format: LogFormat, debug: bool) -> Result<Self, Error> {
        let open = |path: &Path| {
            File::options()
                .append(true)
                .create(true)
                .mode(0o644)
                .open(path)
                .map_err(Error::io("open log", path))
        };
        Ok(Self {
            file: path.map(open).transpose()?,
            format,
            debug,
        })
    }

    pub(crate) fn error(&self, message: &str) {
        self.write("error", message);
    }

    pub(crate) fn warn(&self, message: &str) {
        self.write("warning", &format!("warning: {message}"));
    }

    pub(crate) fn debug(&self, message: &str) {
        if self.debug {
            self.write("debug", message);
        }
    }

    /// A log that can't be written to is no reason to fail what was asked for.
    fn write(&self, level: &str, message: &str) {
        let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let line = match self.format {
            LogFormat::Json => {
                serde_json::json!({"level": level, "msg": message, "time": time}).to_string()
            }
            LogFormat::Text => format!("time=\"{time}\" level={level} msg={message:?}"),
        };
        match &self.file {
            Some(file) => {
                let mut file: &File = file;
                let _ = writeln!(file, "{line}");
                if level == "error" {
                    let _ = writeln!(io::stderr(), "paddock-oci: {message}");
                }
            }
            None if self.format == LogFormat::Json => {
                let _ = writeln!(io::stderr(), "{line}");
            }
            None => {
                let _ = writeln!(io::stderr(), "paddock-oci: {message}");
            }
        }
    }
}
