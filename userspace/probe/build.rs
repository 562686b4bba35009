//! Finds the kernel half's object, which `cargo xtask build` makes beforehand.

use std::{env, path::PathBuf};

fn main() {
    println!("cargo::rerun-if-env-changed=PADDOCK_EBPF_OBJECT");
    let object = env::var_os("PADDOCK_EBPF_OBJECT").map_or_else(
        || {
            let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
            manifest.join("../../target/ebpf/paddock-ebpf.o")
        },
        PathBuf::from,
    );
    println!("cargo::rerun-if-changed={}", object.display());
    match object.canonicalize() {
        Ok(object) => println!(
            "cargo::rustc-env=PADDOCK_EBPF_OBJECT_PATH={}",
            object.display()
        ),
        Err(_) => println!("cargo::error=the kernel half is not built: run `cargo xtask build`"),
    }
}
