//! The `hostler` program: everything is in the library, so that tests can call it.

fn main() -> std::process::ExitCode {
    #[cfg(feature = "crash-points")]
    if std::env::var_os("HOSTLER_NEXT_FORMATS").is_some() {
        hostler::domain::format::pose_as_next_release();
    }
    hostler::cli::main()
}
