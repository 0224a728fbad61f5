//! How the released program is linked: small, and started with as little to do as possible.
//!
//! **Without position independence.** A run begins with the start of a process, and a program that can lie anywhere is
//! relocated at each start: 18,000 words in 80 pages, which then belong to each process alone. Stack, heap and libraries
//! lie at random places all the same.
//!
//! **Without unwind tables.** A panic ends the process (`panic = "abort"`) and says where it was; nothing walks the stack.
//!
//! Other builds (tests, which catch panics) are linked as ever.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=no-unwind-tables.ld");
    if std::env::var("PROFILE").as_deref() != Ok("release") {
        return;
    }
    let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    for argument in ["-no-pie", "-Wl,--no-eh-frame-hdr", &format!("-Wl,-T,{folder}/no-unwind-tables.ld")] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
}
