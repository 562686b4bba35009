//! Docker's env files: `KEY=VALUE` or `KEY` a line, `#` begins a comment line.

use std::{fs, str::FromStr};

/// A file's variables, as `-e` takes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EnvFile(pub(crate) Vec<String>);

/// Read at the command line already: a wrong one is wrong usage.
pub(crate) fn env_file(path: &str) -> Result<EnvFile, String> {
    fs::read_to_string(path)
        .map_err(|error| error.to_string())?
        .parse()
}

impl FromStr for EnvFile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut variables = Vec::new();
        for (line, number) in text.lines().zip(1..) {
            let line = line.trim_start();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let key = line.split('=').next().unwrap_or_default();
            if key.is_empty() || key.contains(char::is_whitespace) || line.contains('\0') {
                return Err(format!("line {number}: expected KEY or KEY=VALUE"));
            }
            variables.push(line.to_owned());
        }
        Ok(Self(variables))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_blanks_are_skipped_and_values_kept_as_they_are() {
        let text = "\u{feff}A=1\n\n# no\n  B= two # three \nHOME\nC=\n";
        let variables = ["A=1", "B= two # three ", "HOME", "C="];
        assert_eq!(
            text.parse(),
            Ok(EnvFile(variables.map(str::to_owned).to_vec()))
        );
        for wrong in ["A=1\n=2", "A B=1", "A\tB"] {
            assert!(wrong.parse::<EnvFile>().is_err(), "{wrong}");
        }
        assert!(env_file("/nowhere-at-all").is_err());
    }
}
