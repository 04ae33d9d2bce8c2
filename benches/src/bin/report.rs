//! Runs every workload on every runtime, interleaved, and prints one markdown table.
//!
//! Interleaved means: in each round each runtime does the workload once, in an order that moves
//! on from round to round, and ratios are taken within a round. What slows the machine down for
//! a while then hits all of them. While one works, the others exist and are idle.

use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use gort_benches::WORKERS;
use gort_benches::process::{Resource, cpu_time, cpu_time_with_children, machine_cpu_time};
use gort_benches::workloads::{Contender, GROUPS};

const USAGE: &str = "\
Compares runtimes and prints a markdown table. Options:
  --rounds N    rounds of each workload (default 11, with --quick 3)
  --only TEXT   only what has TEXT in its name or group; may be repeated
  --cpu         also the CPU time that an operation takes, in percent of the base's
  --quick       a tenth of the operations, and no measurements of memory and idle CPU
  --list        names only
  --help        this text";

/// The runtime that the others are compared with.
const BASE: &str = "tokio";

/// Share of the CPUs that others may use before the report warns. Chosen: builds beside it let the
/// ratios of a workload swing by a factor of three from round to round.
const QUIET: f64 = 0.05;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[derive(Default)]
struct Options {
    rounds: Option<usize>,
    only: Vec<String>,
    cpu: bool,
    quick: bool,
    list: bool,
    help: bool,
    /// Resource and runtime to measure: this process is the child of a report.
    child: Option<(usize, String)>,
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self::default();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                "--rounds" => options.rounds = Some(value()?.parse::<usize>()?.max(1)),
                "--only" => options.only.push(value()?.to_lowercase()),
                "--cpu" => options.cpu = true,
                "--quick" => options.quick = true,
                "--list" => options.list = true,
                "--help" | "-h" => options.help = true,
                "--child" => options.child = Some((value()?.parse()?, value()?)),
                _ => return Err(format!("unknown option {arg}\n{USAGE}").into()),
            }
        }
        Ok(options)
    }

    fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 3 } else { 11 })
    }

    fn wants(&self, group: &str, name: &str) -> bool {
        let names = [group.to_lowercase(), name.to_lowercase()];
        self.only.is_empty()
            || self
                .only
                .iter()
                .any(|text| names.iter().any(|name| name.contains(text)))
    }
}

fn main() -> ExitCode {
    match Options::parse(env::args().skip(1)).and_then(|options| report(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("report: {error}");
            ExitCode::FAILURE
        }
    }
}

fn report(options: &Options) -> Result<()> {
    let contenders = Contender::all();
    if options.help {
        println!("{USAGE}");
        return Ok(());
    }
    if let Some((resource, runtime)) = &options.child {
        return child(&contenders, *resource, runtime);
    }
    let watch = Watch::start();
    let mut rows = Vec::new();
    for group in GROUPS {
        for (index, (name, ops)) in contenders[0].list(group).into_iter().enumerate() {
            if options.list {
                println!("{group}: {name}");
            } else if options.wants(group, name) {
                eprintln!("{group}: {name}");
                let ops = if options.quick { ops.div_ceil(10) } else { ops };
                let costs = compete(&contenders, group, index, ops, options.rounds());
                rows.push(row(&contenders, name, &costs, options));
            }
        }
    }
    for (index, resource) in Resource::ALL.into_iter().enumerate() {
        if options.list {
            println!("process: {}", resource.name());
        } else if options.wants("process", resource.name()) && !options.quick {
            eprintln!("process: {}", resource.name());
            rows.push(resource_row(&contenders, index, resource.name())?);
        }
    }
    if !options.list {
        print!(
            "{}",
            table(
                &contenders,
                &rows,
                &format!("{}; {}", machine()?, watch.stop()),
                options
            )
        );
    }
    Ok(())
}

/// What a fresh process does: measures one resource of one runtime and prints the number.
fn child(contenders: &[Contender], resource: usize, runtime: &str) -> Result<()> {
    let resource = *Resource::ALL.get(resource).ok_or("no such resource")?;
    let contender = contenders
        .iter()
        .find(|c| c.name == runtime)
        .ok_or("no such runtime")?;
    println!("{}", contender.measure(resource));
    Ok(())
}

/// What an operation took, in seconds.
#[derive(Clone, Copy)]
struct Cost {
    time: f64,
    /// Of all threads, the client's side included.
    cpu: f64,
}

/// A vector a contender with an element a round. Or why not.
type Costs = std::result::Result<Vec<Vec<Cost>>, String>;

fn compete(contenders: &[Contender], group: &str, index: usize, ops: u64, rounds: usize) -> Costs {
    let mut runs = Vec::with_capacity(contenders.len());
    for contender in contenders {
        runs.push(contender.prepare(group, index)?);
    }
    // Warm up: threads, caches, allocator arenas, growing queues.
    for run in &mut runs {
        run(ops);
    }
    let mut costs = vec![Vec::with_capacity(rounds); runs.len()];
    for round in 0..rounds {
        for turn in 0..runs.len() {
            let now = (round + turn) % runs.len();
            // What the one before left to do (threads that go to sleep) shall not count here.
            thread::sleep(Duration::from_millis(2));
            let before = cpu_time();
            let time = runs[now](ops).as_secs_f64();
            let cpu = (cpu_time() - before).as_secs_f64();
            costs[now].push(Cost {
                time: time / ops as f64,
                cpu: cpu / ops as f64,
            });
        }
    }
    Ok(costs)
}

fn base(contenders: &[Contender]) -> usize {
    contenders
        .iter()
        .position(|c| c.name == BASE)
        .expect("the base is among the contenders")
}

/// The cells of a workload: for the base its time, for the others how much faster they are.
fn row(contenders: &[Contender], name: &str, costs: &Costs, options: &Options) -> Vec<String> {
    let base = base(contenders);
    let mut cells = vec![name.to_owned()];
    match costs {
        Err(why) => {
            cells.push(format!("skipped: {why}"));
            cells.resize(1 + contenders.len(), "–".to_owned());
        }
        Ok(costs) => cells.extend(costs.iter().enumerate().map(|(i, own)| {
            if i == base {
                return duration(median(own.iter().map(|cost| cost.time)));
            }
            let rounds = || costs[base].iter().zip(own);
            let speeds = rounds().map(|(base, own)| base.time / own.time);
            let min = speeds.clone().fold(f64::INFINITY, f64::min);
            let max = speeds.clone().fold(0.0, f64::max);
            let mut cell = format!("{:.2}× ({min:.2}–{max:.2})", median(speeds));
            if options.cpu {
                let cpu = 100.0 * median(rounds().map(|(base, own)| own.cpu / base.cpu));
                let _ = write!(cell, ", CPU {cpu:.0} %");
            }
            cell
        })),
    }
    cells
}

/// The cells of a resource: numbers, each from a process of its own.
fn resource_row(contenders: &[Contender], index: usize, name: &str) -> Result<Vec<String>> {
    let mut values = Vec::with_capacity(contenders.len());
    for contender in contenders {
        values.push(measure_in_child(contender, index)?);
    }
    let of_base = values[base(contenders)];
    let cell = |(contender, value): (&Contender, &f64)| {
        // Of some microseconds a second, which the measuring itself uses, no percentage is telling.
        if contender.name == BASE || of_base < 50.0 {
            format!("{value:.0}")
        } else {
            format!("{value:.0} ({:.0} %)", 100.0 * value / of_base)
        }
    };
    let mut cells = vec![name.to_owned()];
    cells.extend(contenders.iter().zip(&values).map(cell));
    Ok(cells)
}

fn measure_in_child(contender: &Contender, index: usize) -> Result<f64> {
    let output = Command::new(env::current_exe()?)
        .args(["--child", &index.to_string(), contender.name])
        .output()?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(format!(
            "the child for {} ended with {}: {stderr}",
            contender.name, output.status
        )
        .into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        (values[middle - 1] + values[middle]) / 2.0
    }
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 1e-6 => format!("{:.0} ns", s * 1e9),
        s if s < 1e-3 => format!("{:.2} µs", s * 1e6),
        s => format!("{:.2} ms", s * 1e3),
    }
}

/// Watches how much of the machine's CPU time went to others, which is what makes ratios swing.
struct Watch {
    start: Instant,
    machine: Duration,
    own: Duration,
}

impl Watch {
    fn start() -> Self {
        Self {
            start: Instant::now(),
            machine: machine_cpu_time(),
            own: cpu_time_with_children(),
        }
    }

    fn stop(self) -> String {
        let all = machine_cpu_time() - self.machine;
        let others = all.saturating_sub(cpu_time_with_children() - self.own);
        let cpus = thread::available_parallelism().map_or(1, |n| n.get());
        let share = others.as_secs_f64() / (self.start.elapsed().as_secs_f64() * cpus as f64);
        let busy = if share > QUIET {
            ", too busy for the ratios to be trusted"
        } else {
            ""
        };
        format!(
            "meanwhile others used {:.0} % of the CPUs{busy}",
            100.0 * share
        )
    }
}

/// Processor and kernel.
fn machine() -> Result<String> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, model)| model);
    let cores = thread::available_parallelism()?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let kernel = kernel.trim();
    Ok(format!("{model}, {cores} CPUs, Linux {kernel}"))
}

/// The version of a package in the workspace's lock file.
fn version(package: &str) -> &'static str {
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock"))
        .split_once(&format!("\nname = \"{package}\"\nversion = \""))
        .and_then(|(_, rest)| rest.split_once('"'))
        .map_or("?", |(version, _)| version)
}

fn table(
    contenders: &[Contender],
    rows: &[Vec<String>],
    machine: &str,
    options: &Options,
) -> String {
    let mut out = String::new();
    let names = contenders
        .iter()
        .map(|c| c.name)
        .collect::<Vec<_>>()
        .join(" | ");
    let _ = writeln!(out, "| workload | {names} |");
    let _ = writeln!(out, "|---|{}", "---|".repeat(contenders.len()));
    for cells in rows {
        let _ = writeln!(out, "| {} |", cells.join(" | "));
    }
    let _ = writeln!(
        out,
        "\n{BASE}: time an operation. Others: how many times as fast as {BASE}, the median of the \
         ratios of {} interleaved rounds (smallest–largest). Memory and CPU: less is better. \
         {WORKERS} workers each; tokio {}, async-executor {}, async-io {}{}. {machine}.",
        options.rounds(),
        version("tokio"),
        version("async-executor"),
        version("async-io"),
        if options.quick {
            "; quick mode, a tenth of the operations"
        } else {
            ""
        },
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_odd_and_even_counts() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
    }

    #[test]
    fn durations_choose_their_unit() {
        assert_eq!(duration(1.25e-7), "125 ns");
        assert_eq!(duration(1.25e-5), "12.50 µs");
        assert_eq!(duration(1.25e-2), "12.50 ms");
    }

    #[test]
    fn versions_come_from_the_lock_file() {
        for package in ["tokio", "async-executor", "async-io"] {
            assert!(
                version(package).starts_with(|c: char| c.is_ascii_digit()),
                "{package}"
            );
        }
        assert_eq!(version("no such package"), "?");
    }

    #[test]
    fn rows_show_ratios_to_the_base() {
        let contenders = Contender::all();
        let cost = |time| Cost { time, cpu: time };
        let others = contenders
            .iter()
            .map(|c| if c.name == BASE { 4e-6 } else { 2e-6 });
        let costs = Ok(others.map(|time| vec![cost(time); 3]).collect());
        let cells = row(
            &contenders,
            "w",
            &costs,
            &Options {
                cpu: true,
                ..Options::default()
            },
        );
        for (contender, cell) in contenders.iter().zip(&cells[1..]) {
            let of_base = contender.name == BASE;
            assert_eq!(
                cell,
                if of_base {
                    "4.00 µs"
                } else {
                    "2.00× (2.00–2.00), CPU 50 %"
                }
            );
        }
    }

    #[test]
    fn only_looks_at_names_and_groups() {
        let options = Options::parse(
            ["--only", "TCP", "--only", "spawn"]
                .map(String::from)
                .into_iter(),
        );
        let options = options.expect("valid options");
        assert!(options.wants("net", "TCP echo"));
        assert!(options.wants("spawn", "fork-join"));
        assert!(!options.wants("http", "HTTP"));
    }

    #[test]
    fn unknown_options_are_refused() {
        assert!(Options::parse(["--fast".to_owned()].into_iter()).is_err());
        assert!(Options::parse(["--rounds".to_owned()].into_iter()).is_err());
    }
}
