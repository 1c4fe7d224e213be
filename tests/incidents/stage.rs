//! The stage of an incident: a volume, a running `filltop watch`, the clock, and what was reported.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};
use std::{env, fs, thread};

use anyhow::{Context as _, bail, ensure};
use filltop_tests::{TestVolume, Watch, command, filltop};
use tracer_model::alert::{Event, EventKind};
use tracer_model::snapshot::{Snapshot, Volume, Writer};

use crate::machine::slowness;
use crate::measure::{bytes_to_disk, processor_ticks};
use crate::record::{Check, Output, Record, Sample};
use crate::scenario::Scenario;
use crate::{peers, record};

/// Share of one core that filltop may use.
const MAX_CPU: f64 = 0.02;

/// A running incident.
pub struct Stage {
    /// Its scenario.
    scenario: RefCell<Scenario>,
    /// The volume on which it happens.
    pub volume: TestVolume,
    /// For sockets, logs and other files that are not part of the incident.
    pub dir: tempfile::TempDir,
    watch: Watch,
    start: Instant,
    phases: RefCell<Vec<(String, Instant)>>,
    log: RefCell<Vec<(Instant, Event)>>,
    record: RefCell<Record>,
    looks: RefCell<Vec<thread::JoinHandle<Sample>>>,
    ticks: Cell<u64>,
}

/// Makes the access times of the files that filltop reads so old that a reader who does not avoid
/// it would have them renewed (relatime), which is a write.
fn age_times_of_access() -> anyhow::Result<()> {
    let times = fs::FileTimes::new().set_accessed(SystemTime::now() - Duration::from_secs(172_800));
    for path in ["/etc/passwd", "/etc/group", "/etc/localtime", "/usr/share/zoneinfo"] {
        if let Ok(file) = fs::File::open(path) {
            file.set_times(times)?;
        }
    }
    Ok(())
}

impl Stage {
    /// Creates the volume, runs `prepare` to create what was there before, and starts the watch.
    ///
    /// `words` are filled in where the scenario has them in braces; `{mount}` and `{dir}` are
    /// predefined.
    pub fn new(
        scenario: &str,
        words: &[(&str, &str)],
        prepare: impl FnOnce(&Path, &Path) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        // A socket on a disk would be bytes that filltop writes to it; /run is not on a disk
        // either.
        let dir = tempfile::tempdir_in("/dev/shm")?;
        let mut spec = Scenario::read(scenario, &[])?.volume;
        if let Ok(fs) = env::var("FILLTOP_TEST_FS") {
            spec.fs = fs;
        }
        if let Some(mib) = spec.slow_mib.filter(|_| slowness() > 1.0) {
            spec.mib = mib;
        }
        let volume = TestVolume::new(&spec.fs, spec.mib)?;
        let mount = volume.path().to_str().context("UTF-8")?;
        let beside = dir.path().to_str().context("UTF-8")?;
        let words = [&[("mount", mount), ("dir", beside)], words].concat();
        let scenario = Scenario::read(scenario, &words)?;
        prepare(volume.path(), dir.path())?;
        age_times_of_access()?;
        rustix::fs::sync();
        let socket = dir.path().join("filltop.sock");
        // The first read of a new file, an exec included, updates its access time.
        fs::read(filltop())?;
        let watch = Watch::start_with(&scenario.watch, |command| {
            command.arg("--socket").arg(&socket).env("FILLTOP_RUN_DIR", dir.path().join("run"));
        })?;
        let record = Record {
            name: scenario.name.clone(),
            title: scenario.title.clone(),
            runs: scenario.runs.clone(),
            volume: format!("{}, {} MiB", spec.fs, spec.mib),
            ..Record::default()
        };
        let phases = RefCell::new(vec![("attached".to_owned(), Instant::now())]);
        // What was there before the first sample counts as at rest: wait for a few samples of a
        // quiet volume.
        thread::sleep(Duration::from_secs(3));
        let start = Instant::now();
        let ticks = Cell::new(processor_ticks(watch.pid())?);
        Ok(Self {
            scenario: RefCell::new(scenario),
            volume,
            dir,
            watch,
            start,
            phases,
            log: RefCell::default(),
            record: RefCell::new(record),
            looks: RefCell::default(),
            ticks,
        })
    }

    /// The volume's root.
    pub fn mount(&self) -> &Path {
        self.volume.path()
    }

    /// Seconds since the workload could begin.
    pub fn now_s(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// Fills in a word of the required reports that is known only now.
    pub fn know(&self, word: &str, value: &str) {
        self.scenario.borrow_mut().fill_in(&[(word, value)]);
    }

    /// Seconds from the moment when the workload could begin; negative before that.
    fn seconds_to(&self, at: Instant) -> f64 {
        match at.checked_duration_since(self.start) {
            Some(after) => after.as_secs_f64(),
            None => -self.start.duration_since(at).as_secs_f64(),
        }
    }

    /// Begins a phase: the scenario's deadlines count from it.
    pub fn begin(&self, phase: &str) {
        self.phases.borrow_mut().push((phase.to_owned(), Instant::now()));
    }

    fn phase(&self, name: &str) -> anyhow::Result<Instant> {
        let phases = self.phases.borrow();
        let found = phases.iter().rev().find(|(other, _)| other == name);
        Ok(found.with_context(|| format!("no phase {name} has begun"))?.1)
    }

    /// Bytes that ordinary users can still use.
    pub fn free_bytes(&self) -> anyhow::Result<u64> {
        let space = rustix::fs::statvfs(self.mount())?;
        Ok(space.f_bavail * space.f_frsize)
    }

    /// Waits until the required report of this name has been made.
    pub fn must(&self, id: &str) -> anyhow::Result<Event> {
        let say = self.scenario.borrow().say(id)?;
        let from = self.phase(&say.after)?;
        let within_s = say.within_s * slowness();
        let deadline = from + Duration::from_secs_f64(within_s);
        loop {
            let found = {
                let log = self.log.borrow();
                log.iter().find(|(at, event)| *at >= from && say.is(event)).cloned()
            };
            if let Some((at, event)) = found {
                let at_s = self.seconds_to(at);
                println!("{at_s:6.1} s  {id}: {}", event.summary);
                ensure!(at <= deadline, "{id} came {:?} too late", at - deadline);
                self.record.borrow_mut().checks.push(Check {
                    what: say.what,
                    by_s: self.seconds_to(deadline),
                    at_s,
                    free_bytes: event.avail_bytes,
                });
                return Ok(event);
            }
            if Instant::now() >= deadline {
                let said: Vec<String> = self
                    .log
                    .borrow()
                    .iter()
                    .map(|(_, e)| format!("{} {} {}", e.event.name(), e.rule, e.summary))
                    .collect();
                bail!("{id} was not reported within {within_s} s, but {said:#?}");
            }
            self.pump(Duration::from_millis(100));
        }
    }

    /// Whether it has been reported by now.
    pub fn has(&self, id: &str) -> anyhow::Result<bool> {
        self.scenario.borrow().say(id)?;
        Ok(self.said_at(id).is_ok())
    }

    /// When it was reported.
    pub fn said_at(&self, id: &str) -> anyhow::Result<Instant> {
        let say = self.scenario.borrow().say(id)?;
        let from = self.phase(&say.after)?;
        let log = self.log.borrow();
        let found = log.iter().find(|(at, event)| *at >= from && say.is(event));
        Ok(found.with_context(|| format!("{id} was not reported"))?.0)
    }

    /// Collects the watch's events for some time.
    pub fn pump(&self, length: Duration) {
        let until = Instant::now() + length;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Some(next) = self.watch.next(left) else {
                thread::sleep(until.saturating_duration_since(Instant::now()));
                return;
            };
            self.log.borrow_mut().push(next);
        }
    }

    /// Collects events until a condition holds; `what` names it in the error.
    pub fn until(
        &self,
        what: &str,
        most: Duration,
        mut is_so: impl FnMut() -> anyhow::Result<bool>,
    ) -> anyhow::Result<Duration> {
        let (start, most) = (Instant::now(), most.mul_f64(slowness()));
        while !is_so()? {
            ensure!(start.elapsed() < most, "not within {most:?}: {what}");
            self.pump(Duration::from_millis(50));
        }
        Ok(start.elapsed())
    }

    /// The alerts for this volume since a phase began, without health events and actions.
    pub fn alerts_since(&self, phase: &str) -> anyhow::Result<Vec<Event>> {
        let from = self.phase(phase)?;
        let mount = self.mount().to_str();
        let log = self.log.borrow();
        let alerts = log.iter().filter(|(at, event)| {
            *at >= from
                && event.volume.as_deref() == mount
                && !matches!(event.event, EventKind::Action | EventKind::Health)
        });
        Ok(alerts.map(|(_, event)| event.clone()).collect())
    }

    /// The service's data of the last `length`.
    pub fn snapshot(&self, length: &str) -> anyhow::Result<Snapshot> {
        let output = self.ask(&["snapshot", "--json", "--for", length])?;
        Ok(serde_json::from_str(&output)?)
    }

    /// The volume as the newest Snapshot has it.
    pub fn volume_now(&self) -> anyhow::Result<Volume> {
        let snapshot = self.snapshot("1s")?;
        let mount = self.mount().to_str();
        let found =
            snapshot.volumes.into_iter().find(|row| Some(row.mount_point.as_str()) == mount);
        found.context("the volume is not in the Snapshot")
    }

    /// The row of a process on this volume.
    pub fn writer<'s>(&self, snapshot: &'s Snapshot, pid: u32) -> anyhow::Result<&'s Writer> {
        let mount = self.mount().to_str();
        let mut rows = snapshot.writers.iter().filter(|row| row.pid == pid);
        let found = rows.find(|row| Some(row.volume.as_str()) == mount);
        found.with_context(|| format!("{pid} is not a writer"))
    }

    /// The output of a filltop command that queries the service.
    pub fn ask(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = command(arguments);
        command.env("FILLTOP_SOCKET", self.dir.path().join("filltop.sock"));
        self.answer(&mut command)
    }

    /// `filltop stop`, as an operator types it.
    pub fn stop(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let arguments = [&["stop"], arguments].concat();
        let mut command = command(&arguments);
        command.env("FILLTOP_RUN_DIR", self.dir.path().join("run"));
        let said = self.answer(&mut command)?;
        self.note(&format!("filltop {}", arguments.join(" ")), said.trim_end());
        Ok(said)
    }

    fn answer(&self, command: &mut Command) -> anyhow::Result<String> {
        let output = command.output()?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{command:?}: {}: {complaint}", output.status);
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Records the output of a filltop command.
    pub fn note(&self, by: &str, text: &str) {
        self.record.borrow_mut().said.push(Output {
            at_s: self.now_s(),
            free_bytes: self.free_bytes().ok(),
            by: by.to_owned(),
            text: text.to_owned(),
        });
    }

    /// Records a fact that was measured without filltop.
    pub fn truth(&self, text: impl Into<String>) {
        let text = text.into();
        println!("{:6.1} s  {text}", self.now_s());
        self.record.borrow_mut().truth.push(text);
    }

    /// Runs the other tools in parallel, if a record is wanted.
    pub fn sample_other_tools(&self, when: &str) {
        if record::folder().is_none() {
            return;
        }
        let (mount, when, at_s) = (self.mount().to_owned(), when.to_owned(), self.now_s());
        let sample = thread::spawn(move || Sample { at_s, when, tools: peers::ask(&mount) });
        self.looks.borrow_mut().push(sample);
    }

    /// Returns names that differ in each run, with the plain names that the document uses instead.
    fn plain_names(&self, kernel: &str) -> Vec<(String, String)> {
        let version = kernel.split('-').next().unwrap_or(kernel);
        let mut names = vec![
            (self.mount().display().to_string(), "/srv".to_owned()),
            (self.dir.path().display().to_string(), "/run/incident".to_owned()),
            (kernel.to_owned(), version.to_owned()),
        ];
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let groups = own.lines().filter_map(|line| line.splitn(3, ':').nth(2));
        names.extend(
            groups.filter(|path| *path != "/").map(|path| (path.to_owned(), "/tests".to_owned())),
        );
        names
    }

    /// Checks the tracer's own cost, and writes the record.
    ///
    /// filltop may write nothing to any disk, and use no more than 2 % of a core: processor time of
    /// all its threads from the moment when the workload could begin.
    pub fn finish(self) -> anyhow::Result<()> {
        for sample in self.looks.take() {
            let sample = sample
                .join()
                .map_err(|_| anyhow::anyhow!("a thread that runs the other tools panicked"))?;
            self.record.borrow_mut().looks.push(sample);
        }
        self.pump(Duration::ZERO);
        let pid = self.watch.pid();
        let ticks = processor_ticks(pid)? - self.ticks.get();
        let own_cpu = ticks as f64 / rustix::param::clock_ticks_per_second() as f64 / self.now_s();
        let own_bytes = bytes_to_disk(pid)?;
        println!("filltop used {:.1} % of a core and wrote {own_bytes} B", own_cpu * 100.0);
        let snapshot = self.snapshot("5s")?;
        let mut record = self.record.take();
        record.traced_by = format!(
            "Linux {}, traced by {}s",
            snapshot.backend.kernel,
            snapshot.backend.write.name()
        );
        record.own_cpu = Some(own_cpu);
        record.own_bytes = Some(own_bytes);
        let mount = self.mount().to_str();
        for (at, event) in self.log.borrow().iter() {
            let about_us = event.volume.as_deref() == mount;
            if about_us {
                record.said.push(Output {
                    at_s: self.seconds_to(*at),
                    free_bytes: event.avail_bytes,
                    by: format!("{} {}", event.rule, event.event.name()),
                    text: event.summary.clone(),
                });
            }
        }
        record.said.sort_by(|a, b| a.at_s.total_cmp(&b.at_s));
        record.keep(&self.plain_names(&snapshot.backend.kernel))?;
        ensure!(own_bytes == 0, "filltop itself wrote {own_bytes} B to disks");
        let most = MAX_CPU * slowness();
        ensure!(own_cpu < most, "filltop itself used {:.1} % of a core", own_cpu * 100.0);
        Ok(())
    }
}
