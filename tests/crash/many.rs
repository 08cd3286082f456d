//! Many clients at once, over one service and beside it, and the model that says what must come of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use layerbox_tests::archive::{file, tar};
use layerbox_tests::tree::names;
use serde_json::{Value, json};

use super::world::{leftovers, look};
use crate::command::run;
use crate::harness::{Case, Need, case};
use crate::http::Connection;
use crate::scratch::Place;
use crate::service::Service;
use crate::store::{Dialect, Store, bare};

/// How many clients there are.
const CLIENTS: usize = 64;

/// How many ids each of them makes and removes; all of them are got and given back by all.
const OWN: usize = 4;

/// How long they go on: `CRASH_SECONDS`, else half a minute.
fn duration() -> Duration {
    let seconds = std::env::var("CRASH_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(30))
}

pub fn cases() -> Vec<Case> {
    let overlay = Need::Filesystem("overlay");
    vec![
        case("many: 64 clients, 256 layers, all calls at random, and what the model says", clients)
            .needs(overlay)
            .alone(),
        case("many: processes that make and remove one layer at the same time", same),
        case("many: processes that get, give back and remove one layer at the same time", racing)
            .needs(overlay),
        case("many: a store that is opened twice is an error that names its owner", twice).early(),
    ]
}

/// A layer as its owner knows it.
#[derive(Debug, Clone)]
struct Known {
    parent: Option<String>,
    /// What is in its file, if it was filled.
    content: Option<String>,
}

/// What all clients share.
struct Shared<'a> {
    service: &'a Service,
    /// The layers that were reported made, and not yet asked to be removed.
    layers: Mutex<BTreeMap<String, Known>>,
    /// How many gets succeeded and were not given back, of layers that are mounted.
    held: Mutex<BTreeMap<String, u64>>,
    calls: AtomicU64,
    refused: AtomicU64,
}

/// Errors that come of others being at the same layer.
const EXPECTED: [&str; 7] = [
    "no such layer",
    "no such parent",
    "busy",
    "has children",
    "is mounted",
    "has content already",
    "an archive is being applied to its ancestor",
];

fn clients(place: &Place) -> Result<()> {
    let service = Service::start(place, &["--quiet"])?;
    service.init()?;
    let shared = Shared {
        service: &service,
        layers: Mutex::default(),
        held: Mutex::default(),
        calls: AtomicU64::new(0),
        refused: AtomicU64::new(0),
    };
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos() as u64;
    let end = Instant::now() + duration();
    thread::scope(|scope| -> Result<()> {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let shared = &shared;
                scope.spawn(move || Client::new(shared, number, seed)?.run(end))
            })
            .collect();
        for client in clients {
            client
                .join()
                .map_err(|_| anyhow::anyhow!("a client panicked"))?
                .with_context(|| format!("seed {seed}"))?;
        }
        Ok(())
    })?;
    shared.compare()?;
    // All is given back, and the store is as if nobody had been there.
    for (id, count) in shared.held.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        for _ in 0..*count {
            service.ok("Put", &json!({ "ID": id }))?;
        }
    }
    let store = Store::new(service.path("home"), Dialect::Overlay);
    let world = look(&store)?;
    ensure!(world.values().all(|layer| layer.mounts == 0), "still counted: {world:?}");
    println!(
        "         {} calls, {} of them refused because of another",
        shared.calls.load(Ordering::Relaxed),
        shared.refused.load(Ordering::Relaxed)
    );
    let found = store.run(["check", "--deep"])?;
    ensure!(found.code == 0 && found.stdout.is_empty(), "check: {} {found}", found.text());
    let left = leftovers(&store, &look(&store)?)?;
    ensure!(left.is_empty(), "left behind: {left:?}");
    Ok(())
}

impl Shared<'_> {
    /// Holds the store to what the clients were told.
    fn compare(&self) -> Result<()> {
        let store = Store::new(self.service.path("home"), Dialect::Overlay);
        let layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let world = look(&store)?;
        let ids: BTreeSet<&String> = layers.keys().collect();
        ensure!(world.keys().collect::<BTreeSet<_>>() == ids, "{:?}, but there are {:?}", ids, world.keys());
        for (id, known) in layers.iter() {
            let layer = &world[id];
            ensure!(layer.parent == known.parent, "{id} lies on {:?}, not {:?}", layer.parent, known.parent);
            let count = held.get(id).copied().unwrap_or_default();
            ensure!(layer.mounts == count, "{id} is counted {} times, and held {count} times", layer.mounts);
            let content = fs::read_to_string(store.content(id).join(id)).ok();
            ensure!(content == known.content, "{id} holds {content:?}, not {:?}", known.content);
        }
        Ok(())
    }
}

/// A client with a connection of its own.
struct Client<'a> {
    shared: &'a Shared<'a>,
    connection: Connection,
    number: usize,
    random: u64,
    /// What it got and has not given back.
    got: Vec<String>,
}

impl<'a> Client<'a> {
    fn new(shared: &'a Shared<'a>, number: usize, seed: u64) -> Result<Client<'a>> {
        let random = seed.wrapping_add(number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        Ok(Client { shared, connection: shared.service.connect()?, number, random, got: Vec::new() })
    }

    /// xorshift64: what matters is that a seed gives the same again.
    fn below(&mut self, bound: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 16) as usize % bound
    }

    fn run(mut self, end: Instant) -> Result<()> {
        while Instant::now() < end {
            let which = self.below(OWN);
            let own = format!("l{}-{which}", self.number);
            match self.below(12) {
                0..=2 => self.create(&own)?,
                3..=4 => self.remove(&own)?,
                5 => self.fill(&own)?,
                6..=8 => self.get()?,
                9..=10 => self.put()?,
                _ => self.read()?,
            }
        }
        Ok(())
    }

    /// Makes a call; false where another client's doing is why it was refused.
    fn call(&mut self, name: &str, body: &Value) -> Result<Option<Value>> {
        let path = format!("/GraphDriver.{name}");
        let answer = self.connection.call("POST", &path, body.to_string().as_bytes())?;
        self.judge(name, answer.json()?)
    }

    fn judge(&self, name: &str, json: Value) -> Result<Option<Value>> {
        self.shared.calls.fetch_add(1, Ordering::Relaxed);
        match json.get("Err").and_then(Value::as_str).filter(|text| !text.is_empty()) {
            None => Ok(Some(json)),
            Some(text) if EXPECTED.iter().any(|expected| text.contains(expected)) => {
                self.shared.refused.fetch_add(1, Ordering::Relaxed);
                Ok(None)
            }
            Some(text) => bail!("{name}: {text}"),
        }
    }

    fn known(&self, id: &str) -> Option<Known> {
        self.shared.layers.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// Any layer that is known, of whomever.
    fn any(&mut self) -> Option<String> {
        let at = self.below(CLIENTS * OWN);
        let layers = self.shared.layers.lock().unwrap_or_else(PoisonError::into_inner);
        layers.keys().nth(at % layers.len().max(1)).cloned()
    }

    fn create(&mut self, id: &str) -> Result<()> {
        if self.known(id).is_some() {
            return Ok(());
        }
        let parent = if self.below(5) == 0 { None } else { self.any() };
        let body = json!({ "ID": id, "Parent": parent.clone().unwrap_or_default() });
        if self.call("Create", &body)?.is_some() {
            let known = Known { parent, content: None };
            self.shared.layers.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), known);
        }
        Ok(())
    }

    fn remove(&mut self, id: &str) -> Result<()> {
        let Some(known) = self.known(id) else { return Ok(()) };
        // Others may no more choose it, and may try what they had chosen before.
        self.shared.layers.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        // By the command line, which goes to the service: Docker's own call takes a layer away from whoever
        // got it.
        let store = Store::new(self.shared.service.path("home"), Dialect::Overlay);
        let output = store.run(["remove", id])?;
        self.shared.calls.fetch_add(1, Ordering::Relaxed);
        ensure!([0, 4].contains(&output.code), "{output}");
        if output.code == 4 {
            self.shared.refused.fetch_add(1, Ordering::Relaxed);
            self.shared.layers.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), known);
        }
        Ok(())
    }

    fn fill(&mut self, id: &str) -> Result<()> {
        if self.known(id).is_none_or(|known| known.content.is_some()) {
            return Ok(());
        }
        let content = self.below(1 << 30).to_string();
        let answer = self.shared.service.apply(id, &tar(&[file(id, content.clone())]))?;
        if self.judge("ApplyDiff", answer.json()?)?.is_some()
            && let Some(known) = self.shared.layers.lock().unwrap_or_else(PoisonError::into_inner).get_mut(id)
        {
            known.content = Some(content);
        }
        Ok(())
    }

    fn get(&mut self) -> Result<()> {
        let Some(id) = self.any() else { return Ok(()) };
        let Some(answer) = self.call("Get", &json!({ "ID": id, "MountLabel": "" }))? else { return Ok(()) };
        let path = answer["Dir"].as_str().context("no path")?.to_owned();
        // A base layer is seen where it lies; nobody counts that.
        if path.contains("/diff/") {
            return Ok(());
        }
        // Its owner may be trying to remove it, in vain.
        if let Some(content) = self.known(&id).and_then(|known| known.content) {
            let found = fs::read_to_string(format!("{path}/{id}")).with_context(|| {
                let (seen, own) =
                    (names(Path::new(&path)), names(&self.shared.service.path("home/diff").join(&id)));
                format!("{path} holds {seen:?}, and the layer {own:?}, not {content:?}")
            })?;
            ensure!(found == content, "{id} shows {found}, not {content}");
        }
        *self.shared.held.lock().unwrap_or_else(PoisonError::into_inner).entry(id.clone()).or_default() += 1;
        self.got.push(id);
        Ok(())
    }

    fn put(&mut self) -> Result<()> {
        if self.got.is_empty() {
            return Ok(());
        }
        let at = self.below(self.got.len());
        let id = self.got[at].clone();
        if self.call("Put", &json!({ "ID": id }))?.is_some() {
            self.got.swap_remove(at);
            if let Some(count) = self.shared.held.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&id)
            {
                *count -= 1;
            }
        }
        Ok(())
    }

    fn read(&mut self) -> Result<()> {
        let Some(id) = self.any() else { return Ok(()) };
        let name = ["Exists", "GetMetadata", "Status", "Changes", "DiffSize"][self.below(5)];
        self.call(name, &json!({ "ID": id, "Parent": "" })).map(drop)
    }
}

/// How many processes there are at once where each is one call.
const PROCESSES: usize = 16;

/// Runs a call in many processes at once, and gives their exit status.
fn at_once(store: &Store, calls: &[&[&str]]) -> Result<Vec<i32>> {
    thread::scope(|scope| {
        let one = |number: usize| {
            move || Ok(run(&mut store.command(calls[number % calls.len()].iter().copied()), b"")?.code)
        };
        let running: Vec<_> = (0..PROCESSES).map(|number| scope.spawn(one(number))).collect();
        running.into_iter().map(|it| it.join().map_err(|_| anyhow::anyhow!("a panic"))?).collect()
    })
}

fn same(place: &Place) -> Result<()> {
    let store = Store::new(place.join("s"), Dialect::Overlay);
    store.create("base", None)?;
    for round in 0..5 {
        for (call, other) in [(&["create", "one", "--parent", "base"][..], 4), (&["remove", "one"], 3)] {
            let ends = at_once(&store, &[call])?;
            let (done, refused): (Vec<i32>, Vec<i32>) = ends.iter().partition(|code| **code == 0);
            ensure!(done.len() == 1, "round {round}: {call:?} was done {} times: {ends:?}", done.len());
            ensure!(refused.iter().all(|code| *code == other), "round {round}: {call:?} ended with {ends:?}");
        }
    }
    let left = leftovers(&store, &look(&store)?)?;
    ensure!(left.is_empty(), "left behind: {left:?}");
    store.ok(["check"]).map(drop)
}

fn racing(place: &Place) -> Result<()> {
    let store = Store::new(place.join("s"), Dialect::Overlay);
    store.layer("base", None, &[file("of-base", "base")])?;
    for round in 0..5 {
        store.create("one", Some("base"))?;
        let ends = at_once(&store, &[&["get", "one"], &["put", "one"], &["remove", "one"]])?;
        ensure!(ends.iter().all(|code| [0, 3, 4].contains(code)), "round {round}: {ends:?}");
        let world = look(&store)?;
        let left = leftovers(&store, &world)?;
        ensure!(left.is_empty(), "round {round}, left behind: {left:?}");
        // Whoever was last: either it is gone, or as many hold it as is said.
        if let Some(layer) = world.get("one") {
            for _ in 0..layer.mounts {
                ensure!(store.root().join("mnt/one/of-base").exists(), "counted, and not mounted");
                store.put("one")?;
            }
            store.ok(["remove", "one"])?;
        }
        store.knows_nothing_of("one")?;
    }
    store.ok(["check"]).map(drop)
}

fn twice(place: &Place) -> Result<()> {
    let service = Service::start(place, &[])?;
    service.init()?;
    let mut second = bare();
    second.arg("--root").arg(service.path("home")).arg("serve").arg("--docker").arg(place.join("other.sock"));
    second.arg("--socket").arg(place.join("other-control.sock"));
    run(&mut second, b"")?.expect(4)?.says(&format!("in use by process {}", service.id()))?;
    Ok(())
}
