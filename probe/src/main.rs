//! The `hostler-probe` program: everything is in the library, so that man pages can be made from it.

fn main() -> std::process::ExitCode {
    hostler_probe::main()
}
