//! x
fn main() {
    let mut t = match tracer::probes::Tracer::start(&tracer::probes::TracerOptions{backend: std::env::args().nth(1).map(|b| match b.as_str(){"fentry"=>tracer_model::snapshot::WriteBackend::Fentry,"kprobe"=>tracer_model::snapshot::WriteBackend::Kprobe,_=>tracer_model::snapshot::WriteBackend::Tracepoint}), ..Default::default()}) { Ok(t)=>t, Err(e)=>{ eprintln!("{e:#}"); std::process::exit(1)} };
    for h in t.hooks() { println!("{h:?}"); }
    let mut c = tracer::collect::Collector::new(&mut t).unwrap();
    c.look(0).unwrap();
    let o = std::process::Command::new("dd").args(["if=/dev/zero","of=/tmp/ddtest","bs=1M","count=50"]).output().unwrap();
    println!("{}", String::from_utf8_lossy(&o.stderr));
    let d = c.look(t.missed_by_kernel()).unwrap();
    for (k, v) in &d.pairs { println!("{k:?} {v:?}"); }
    println!("{:?} {}", d.errors, d.lost_total);
    c.records(|r| match r { tracer::collect::Record::Name(n) => println!("name {} {:?}->{:?} fl {}", String::from_utf8_lossy(&n.name[..n.header.len as usize]), n.file, n.parent, n.flags), tracer::collect::Record::Process(p) => println!("proc {:?} {:?} {:?}", p.proc, String::from_utf8_lossy(&p.comm), String::from_utf8_lossy(&p.cmdline[..p.header.len as usize])), tracer::collect::Record::Exit(p) => println!("exit {p:?}")});
}
