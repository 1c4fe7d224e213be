//! For `cargo xtask dist`: manual pages and shell completions, generated from the clap definition.
//!
//! Argument: the output directory, which gets the layout of `/usr/local`.

use std::path::Path;
use std::{env, fs, io};

use anyhow::Context as _;
use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

/// Where each shell searches for completions of `filltop`.
const COMPLETIONS: [(Shell, &str); 3] = [
    (Shell::Bash, "share/bash-completion/completions/filltop"),
    (Shell::Zsh, "share/zsh/site-functions/_filltop"),
    (Shell::Fish, "share/fish/vendor_completions.d/filltop.fish"),
];

/// Sections common to all commands, which their help texts do not contain.
const EXIT_STATUS: [(&str, &str); 3] = [
    ("0", "Success."),
    ("1", "Failure, with one line on stderr that says what to do."),
    ("2", "Wrong usage."),
];
const ENVIRONMENT: [(&str, &str); 5] = [
    ("NO_COLOR", "If set to a non-empty value, output has no colours."),
    ("TERM", "If `dumb`, output has no colours."),
    ("LC_ALL, LC_CTYPE, LANG", "If the locale is not UTF-8, only ASCII is printed."),
    ("FILLTOP_SOCKET", "The socket of `filltop watch` [default: /run/filltop/filltop.sock]."),
    ("FILLTOP_HOST_ROOT", "The host's root directory, if filltop runs in its own mount namespace."),
];

fn main() -> anyhow::Result<()> {
    let into = env::args_os().nth(1).context("usage: manual DIRECTORY")?;
    let into = Path::new(&into);
    let pages = into.join("share/man/man1");
    fs::create_dir_all(&pages)?;
    for command in commands() {
        let file = pages.join(format!("{}.1", page_name(&command)));
        fs::write(&file, page(&command)?).with_context(|| file.display().to_string())?;
    }
    for (shell, path) in COMPLETIONS {
        let file = into.join(path);
        fs::create_dir_all(file.parent().context("no directory")?)?;
        fs::write(&file, completion(shell)).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

/// The command line without the internal commands.
fn visible() -> Command {
    let whole = tracer::cli::command();
    let shown = whole.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    Command::new("filltop")
        .version(env!("CARGO_PKG_VERSION"))
        .about(whole.get_about().cloned().unwrap_or_default())
        .after_help(whole.get_after_help().cloned().unwrap_or_default())
        .args(whole.get_arguments().cloned())
        .subcommands(shown)
        .disable_help_subcommand(true)
        .args_conflicts_with_subcommands(true)
}

/// The program and each public command, with their full names.
fn commands() -> Vec<Command> {
    let mut root = visible();
    root.build();
    let shown: Vec<Command> = root.get_subcommands().cloned().collect();
    std::iter::once(root).chain(shown).collect()
}

/// The name of a page: `filltop`, `filltop-watch`, …
fn page_name(command: &Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned()
}

fn page(command: &Command) -> io::Result<Vec<u8>> {
    let name = page_name(command);
    // clap_mangen's own section would refill the lines of the examples like prose.
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let bare = command.clone().after_help("");
    let version = concat!("filltop ", env!("CARGO_PKG_VERSION"));
    let man = Man::new(bare).title(name.clone()).manual("filltop").source(version);
    let mut out = Vec::new();
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    man.render_options_section(&mut out)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut out)?;
    }
    let mut roff = Roff::new();
    if !after.is_empty() {
        roff.control("SH", ["EXAMPLES AND NOTES"]);
        roff.control("nf", []);
        for line in after.lines() {
            roff.text([roman(line)]);
        }
        roff.control("fi", []);
    }
    // The notes of `check` list its own exit statuses.
    if !name.ends_with("check") {
        list(&mut roff, "EXIT STATUS", &EXIT_STATUS);
    }
    list(&mut roff, "ENVIRONMENT", &ENVIRONMENT);
    let others: Vec<String> = commands().iter().map(page_name).filter(|n| *n != name).collect();
    roff.control("SH", ["SEE ALSO"]);
    roff.text([roman(others.iter().map(|n| format!("{n}(1)")).collect::<Vec<_>>().join(", "))]);
    roff.to_writer(&mut out)?;
    Ok(out)
}

fn list(roff: &mut Roff, heading: &str, items: &[(&str, &str)]) {
    roff.control("SH", [heading]);
    for (term, meaning) in items {
        roff.control("TP", []);
        roff.text([clap_mangen::roff::bold(*term)]);
        roff.text([roman(*meaning)]);
    }
}

fn completion(shell: Shell) -> Vec<u8> {
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut visible(), "filltop", &mut out);
    out
}

#[cfg(test)]
mod tests {
    use std::process::Command as Process;

    use super::*;

    /// The text of a page without roff escapes.
    fn text(command: &Command) -> String {
        let text = String::from_utf8(page(command).unwrap()).unwrap();
        text.replace("\\-", "-").replace("\\*(Aq", "'").replace("\\&", "").replace("\\\\", "\\")
    }

    fn flags(command: &Command) -> Vec<String> {
        let long = command.get_arguments().filter_map(clap::Arg::get_long);
        let long = long.map(|name| format!("--{name}"));
        let short = command.get_arguments().filter_map(clap::Arg::get_short);
        long.chain(short.map(|letter| format!("-{letter}"))).collect()
    }

    fn values(command: &Command) -> Vec<String> {
        let values = command.get_arguments().filter(|arg| arg.get_action().takes_values());
        let values = values.flat_map(clap::Arg::get_possible_values);
        values.map(|value| value.get_name().to_owned()).collect()
    }

    #[test]
    fn every_command_has_a_page_with_all_its_arguments() {
        let whole = tracer::cli::command();
        let names: Vec<String> = commands().iter().map(page_name).collect();
        for command in whole.get_subcommands() {
            let page = format!("filltop-{}", command.get_name());
            assert_eq!(names.contains(&page), !command.is_hide_set(), "{page}");
        }
        for command in commands() {
            let text = text(&command);
            let name = page_name(&command);
            assert!(text.contains(&format!(".TH {name} 1")), "{text}");
            for wanted in flags(&command).into_iter().chain(values(&command)) {
                assert!(text.contains(&wanted), "{name} lacks {wanted}: {text}");
            }
            for argument in command.get_arguments().filter(|argument| argument.get_id() != "help") {
                let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
                let first = help.lines().next().unwrap_or_default();
                assert!(!first.is_empty() && text.contains(first), "{name}: {first} in {text}");
            }
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in after.lines() {
                assert!(text.contains(line), "{name}: {line}");
            }
        }
    }

    /// Pins the pages, so that reviewers see every change.
    #[test]
    fn pages_match_their_snapshots() {
        for command in commands() {
            insta::assert_snapshot!(page_name(&command), text(&command));
        }
    }

    #[test]
    fn every_shell_completes_every_command_and_flag() {
        let hidden = tracer::cli::command();
        let hidden = hidden.get_subcommands().filter(|c| c.is_hide_set()).map(Command::get_name);
        let hidden: Vec<&str> = hidden.collect();
        for (shell, _) in COMPLETIONS {
            let script = String::from_utf8(completion(shell)).unwrap();
            for command in commands() {
                assert!(script.contains(command.get_name()), "{shell}: {}", command.get_name());
                for flag in flags(&command) {
                    // Fish writes flags without dashes: `-l json`, `-s v`.
                    let fish = flag.strip_prefix("--").map_or_else(
                        || format!("-s {}", flag.trim_start_matches('-')),
                        |long| format!("-l {long}"),
                    );
                    let wanted = if shell == Shell::Fish { &fish } else { &flag };
                    assert!(script.contains(wanted.as_str()), "{shell}: {wanted}");
                }
            }
            for word in &hidden {
                assert!(!script.contains(&format!("filltop,{word}")), "{shell}: {word}");
            }
        }
    }

    /// Checks what a real bash offers for the last word of a command line.
    #[test]
    fn bash_completes_commands_flags_and_values() {
        if Process::new("bash").arg("--version").output().is_err() {
            println!("SKIP bash_completes_commands_flags_and_values: bash is not installed");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("filltop");
        fs::write(&script, completion(Shell::Bash)).unwrap();
        let offered = |words: &[&str]| {
            let last = words.len() - 1;
            let line = format!(
                "source '{}'; COMP_WORDS=({}); COMP_CWORD={last}; _filltop filltop '{}' '{}'; \
                 echo \"${{COMPREPLY[@]}}\"",
                script.display(),
                words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" "),
                words[last],
                words[last - 1],
            );
            let output = Process::new("bash").args(["--norc", "-c", &line]).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        assert_eq!(offered(&["filltop", "wat"]), "watch");
        assert_eq!(offered(&["filltop", "watch", "--print"]), "--print-config");
        assert_eq!(offered(&["filltop", "snapshot", "--backend", "k"]), "kprobe");
        assert_eq!(offered(&["filltop", "helper"]), "");
        for command in commands().iter().skip(1) {
            let all = offered(&["filltop", command.get_name(), "-"]);
            let mut all: Vec<&str> = all.split(' ').collect();
            all.sort_unstable();
            let mut wanted = flags(command);
            wanted.sort_unstable();
            assert_eq!(all, wanted, "{}", command.get_name());
        }
    }
}
