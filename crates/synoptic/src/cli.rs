//! The command line: what it takes and which module does it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use synoptic_config::Config;

use crate::cli_error::{CliError, Result};
use crate::demo_options::DemoOptions;
use crate::logging::{self, Verbosity};

/// The configuration that is used when `-c` is not given.
const DEFAULT_CONFIG: &str = "synoptic.toml";

/// Worker threads beyond one per core.
const EXTRA_WORKERS: usize = 4;

const EXIT_CODES: &str = "Exit codes: 0 done, 1 the query or check failed, 2 wrong usage. \
                          Logs go to stderr; RUST_LOG or --log choose what is logged.";

#[derive(Debug, Parser)]
#[command(
    name = "synoptic",
    version,
    about = "SQL over live sources, as fresh as you ask.",
    after_help = EXIT_CODES
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// What is logged on stderr, for example `debug` or `warn,synoptic=trace`.
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a small bank out of real prices and rates, and tour it with federated queries.
    Demo(DemoArgs),
    /// Serve Flight SQL.
    Serve(ConfigArgs),
    /// Run statements, or open a prompt.
    Sql(SqlArgs),
    /// Read the configuration, connect to every source and say what is there.
    Check(ConfigArgs),
}

#[derive(Debug, Args)]
struct DemoArgs {
    /// Where the demo's sources are made.
    #[arg(long, value_name = "DIR", default_value = "./synoptic-demo")]
    dir: PathBuf,
    /// Keep serving after the tour.
    #[arg(long)]
    serve: bool,
    /// Where to serve; port 0 picks a free one.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:50051", requires = "serve")]
    listen: String,
}

#[derive(Debug, Args)]
struct ConfigArgs {
    /// The configuration file; `synoptic.toml` in the current folder when not given.
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    config: Option<PathBuf>,
}

/// The arguments of `synoptic sql`.
#[derive(Debug, Args)]
pub struct SqlArgs {
    /// Run an engine here over the sources of this file; `synoptic.toml` in the current folder
    /// when neither `-c` nor `--url` is given.
    #[arg(short = 'c', long = "config", value_name = "FILE", conflicts_with = "url")]
    pub config: Option<PathBuf>,
    /// Ask the server at grpc://HOST:PORT instead.
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Run these statements. Can be given several times.
    #[arg(short = 'e', long = "execute", value_name = "SQL")]
    pub execute: Vec<String>,
    /// Run the statements of this file, after those of `-e`; `-` is stdin.
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// How answers are written.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// After each answer, say on stderr what was read where.
    #[arg(long)]
    pub receipt: bool,
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns for people; the whole answer is held in memory.
    Table,
    /// RFC 4180 with a header line; NULL is an empty field, an empty text is `""`.
    Csv,
    /// One array of objects per answer.
    Json,
    /// One object per line.
    Ndjson,
    /// An Arrow IPC stream per answer.
    Arrow,
}

/// Runs the program.
pub fn main() -> ExitCode {
    // clap itself exits with 2 on wrong usage and with 0 on --help.
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !matches!(error, CliError::OutputClosed) {
                eprintln!("{error}");
            }
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    let verbosity = match &cli.command {
        Command::Serve(_) => Verbosity::Server,
        Command::Demo(_) | Command::Sql(_) | Command::Check(_) => Verbosity::Quiet,
    };
    logging::init(cli.log.as_deref(), verbosity)?;
    // Whoever uses TLS finds one provider. An error says that there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // A plan may compute for long without a pause in as many tasks as there are cores; the
        // threads beyond them let the rest go on meanwhile.
        .worker_threads(cores + EXTRA_WORKERS)
        // With less, every poll of a statement would make and unmake a stack of its own.
        .thread_stack_size(synoptic_engine::THREAD_STACK)
        .enable_all()
        .build()
        .map_err(|error| CliError::io("start the async runtime", &error))?;
    let result = runtime.block_on(async {
        match cli.command {
            Command::Demo(DemoArgs { dir, serve, listen }) => {
                crate::demo::run(DemoOptions { dir, serve, listen }).await
            }
            Command::Serve(args) => {
                let path = args.config.unwrap_or_else(|| DEFAULT_CONFIG.into());
                crate::serve::run(path).await
            }
            Command::Sql(args) => crate::sql::run(args).await,
            Command::Check(args) => {
                let path = args.config.unwrap_or_else(|| DEFAULT_CONFIG.into());
                crate::check::run(&Config::load(&path, &synoptic_connectors::names())?).await
            }
        }
    });
    // Tasks that still read a source are not waited for: their answers have no reader.
    runtime.shutdown_background();
    result
}

/// The configuration `sql` runs on: the given file, else the default one, else no sources.
///
/// # Errors
/// When the file cannot be read or is wrong.
pub(crate) fn sql_config(path: Option<&std::path::Path>) -> Result<Config> {
    let default = std::path::Path::new(DEFAULT_CONFIG);
    match path {
        Some(path) => Ok(Config::load(path, &synoptic_connectors::names())?),
        None if default.exists() => Ok(Config::load(default, &synoptic_connectors::names())?),
        None => Ok(Config::default()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn wrong_usage_is_refused() {
        for (line, kind) in [
            ("synoptic", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
            ("synoptic sql -c a --url b", ErrorKind::ArgumentConflict),
            ("synoptic sql --format xml", ErrorKind::InvalidValue),
            ("synoptic serve --port 1", ErrorKind::UnknownArgument),
            ("synoptic demo --listen 127.0.0.1:0", ErrorKind::MissingRequiredArgument),
        ] {
            let error = Cli::try_parse_from(line.split(' ')).expect_err(line);
            assert_eq!(error.kind(), kind, "{line}");
        }
    }

    #[test]
    fn statements_come_in_order_and_the_format_is_a_word() {
        let line = ["synoptic", "sql", "-e", "SELECT 1", "-e", "SELECT 2", "--format", "ndjson"];
        let cli = Cli::try_parse_from(line).expect("valid");
        let Command::Sql(args) = cli.command else { panic!("not sql") };
        assert_eq!(args.execute, ["SELECT 1", "SELECT 2"]);
        assert_eq!(args.format, Format::Ndjson);
    }
}
