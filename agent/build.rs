//! How the released program is linked: without unwind tables, a seventh of it. A panic ends the process there
//! (`panic = "abort"`) and says where it was; nothing walks the stack. Other builds (tests, which catch panics) have them.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=no-unwind-tables.ld");
    if std::env::var("PROFILE").as_deref() != Ok("release") {
        return;
    }
    let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    for argument in ["-Wl,--no-eh-frame-hdr", &format!("-Wl,-T,{folder}/no-unwind-tables.ld")] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
}
