//! `linux.netDevices`: the host's devices by name, and their names inside.

use oci_spec::runtime::Linux;
use paddock_runtime::{
    net_devices::{NetDevice, is_valid_name, is_valid_target},
    spec::Namespaces,
};

use crate::{config::shorten, error::Error};

/// In the order of their names: the file has none.
pub(super) fn net_devices(linux: &Linux, namespaces: &Namespaces) -> Result<Vec<NetDevice>, Error> {
    let mut devices: Vec<_> = linux
        .net_devices()
        .iter()
        .flatten()
        .map(|(name, device)| {
            let target = device.name().clone().filter(|target| !target.is_empty());
            NetDevice {
                name: name.clone(),
                target: target.unwrap_or_else(|| name.clone()),
            }
        })
        .collect();
    if !devices.is_empty() && namespaces.net.is_host() {
        return Err(Error::config(
            "linux.netDevices: needs a network namespace, which linux.namespaces does not have",
        ));
    }
    devices.sort_by(|one, other| one.name.cmp(&other.name));
    for (index, device) in devices.iter().enumerate() {
        let wrong = |why: &str| {
            Err(Error::config(format!(
                "linux.netDevices {:?}: {why}",
                shorten(&device.name)
            )))
        };
        if !is_valid_name(&device.name) {
            return wrong(
                "is no device's name: at most 15 bytes, not . or .., without space, /, : and %",
            );
        }
        let target = shorten(&device.target);
        if !is_valid_target(&device.target) {
            return wrong(&format!(
                "name {target:?}: at most 15 bytes, not . or .., without space, /, : and %, but for one %d"
            ));
        }
        let earlier = devices.iter().take(index);
        if let Some(other) = earlier
            .filter(|_| !device.is_template())
            .find(|other| other.target == device.target)
        {
            return wrong(&format!("{:?} gets the name {target:?}, too", other.name));
        }
    }
    Ok(devices)
}

#[cfg(test)]
mod tests {
    use paddock_runtime::spec::Namespace;
    use serde_json::{Value, json};

    use super::*;

    fn translated(net: Namespace, devices: &Value) -> Result<Vec<NetDevice>, String> {
        let linux: Linux = serde_json::from_value(json!({"netDevices": devices}))
            .map_err(|error| error.to_string())?;
        let (mut namespaces, _) = super::super::namespaces::translate(
            &serde_json::from_value(json!({"namespaces": [{"type": "mount"}]})).unwrap(),
        )
        .unwrap();
        namespaces.net = net;
        net_devices(&linux, &namespaces).map_err(|error| error.line())
    }

    #[test]
    fn a_device_keeps_its_name_or_gets_another() {
        let devices = json!({
            "eth1": {"name": "net%d"}, "eth0": {}, "a": {"name": "eth1"}, "b": {"name": ""},
            "eth2": {"name": "net%d"},
        });
        let found = translated(Namespace::New, &devices).unwrap();
        let pairs: Vec<_> = found
            .iter()
            .map(|device| (&*device.name, &*device.target))
            .collect();
        let expected = [
            ("a", "eth1"),
            ("b", "b"),
            ("eth0", "eth0"),
            ("eth1", "net%d"),
            ("eth2", "net%d"),
        ];
        assert_eq!(pairs, expected);
    }

    #[test]
    fn without_devices_the_namespace_may_be_the_hosts() {
        assert_eq!(translated(Namespace::Host, &json!({})), Ok(vec![]));
        let refused = translated(Namespace::Host, &json!({"eth0": {}})).unwrap_err();
        assert!(refused.contains("needs a network namespace"), "{refused}");
    }

    #[test]
    fn wrong_names_are_refused() {
        for (devices, why) in [
            (json!({"": {}}), r#"netDevices "": is no device's name"#),
            (json!({"a/b": {}}), "is no device's name"),
            (json!({"eth%d": {}}), "is no device's name"),
            (json!({"a234567890123456": {}}), "is no device's name"),
            (json!({"a\n": {}}), r#""a\n": is no device's name"#),
            (json!({"eth0": {"name": ".."}}), r#"name "..": at most 15"#),
            (json!({"eth0": {"name": "a b"}}), r#"name "a b""#),
            (json!({"eth0": {"name": "%d%d"}}), r#"name "%d%d""#),
            (
                json!({"eth0": {"name": "x"}, "eth1": {"name": "x"}}),
                r#""eth1": "eth0" gets the name "x", too"#,
            ),
            (
                json!({"eth0": {}, "eth1": {"name": "eth0"}}),
                r#""eth0" gets the name "eth0", too"#,
            ),
            (json!({"eth0": {"name": 7}}), "invalid type"),
            (json!({"eth0": 7}), "invalid type"),
        ] {
            let refused = translated(Namespace::New, &devices).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
        let long = translated(Namespace::New, &json!({"x".repeat(5000): {}})).unwrap_err();
        assert!(long.len() < 400, "{long}");
    }
}
