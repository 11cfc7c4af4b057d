//! The program: arguments in, exit code out.

/// Whoever calls `fim` is told by line and exit code when memory is exhausted, as of any other failure.
#[global_allocator]
static MEMORY: fim::sys::memory::Memory =
    fim::sys::memory::Memory { exhausted: fim::cli::exit::OTHER };

fn main() -> std::process::ExitCode {
    fim::sys::memory::end_cleanly_where_aborted::<{ fim::cli::exit::OTHER }>();
    fim::cli::run(std::env::args_os())
}
