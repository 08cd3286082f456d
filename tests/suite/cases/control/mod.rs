//! The command line beside a service: the same words, the same exit statuses, whoever does the work; and
//! neither is kept by what becomes of the other.

mod alike;

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use layerbox_tests::archive::{file, tar};
use layerbox_tests::tree::names;
use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;

use crate::command::{component, copied, run, shell, tool, utf8};
use crate::harness::{Case, Need, case};
use crate::scratch::{Place, mounts_below};
use crate::service::{Service, eventually};
use crate::store::{Dialect, Store, bare, runtime};

pub(super) fn cases() -> Vec<Case> {
    let overlay = Need::Filesystem("overlay");
    vec![
        case("control: every command says and returns the same through a service", alike::alike)
            .needs(overlay),
        case(
            "control: a command that is killed while it fills a layer leaves it empty and reusable",
            |place| {
                let (store, service) = owned(place)?;
                store.create("base", None)?;
                let archive = tar(&[file("a", vec![1; 100_000])]);
                let mut command = store.command(["apply-diff", "base"]).stdin(Stdio::piped()).spawn()?;
                let mut stdin = command.stdin.take().context("no pipe")?;
                stdin.write_all(&archive[..50_000])?;
                eventually("the layer is being filled", || {
                    Ok(!names(&store.root().join("stage"))?.is_empty())
                })?;
                command.kill()?;
                command.wait()?;
                // The pipe is still open at this end: it is not its end that ends the call.
                eventually("the call has ended", || Ok(names(&store.root().join("stage"))?.is_empty()))?;
                store.is_empty_and_reusable("base")?;
                drop(stdin);
                answers(&service, &store)
            },
        ),
        case("control: the service counts the bytes of archives", |place| {
            let (store, service) = owned(place)?;
            let archive = tar(&[file("a", vec![1; 100_000])]);
            store.create("base", None)?;
            store.apply("base", &archive)?.expect(0)?;
            let written = store.run(["diff", "base"])?.expect(0)?.stdout.len();
            let log = service.log()?;
            for (operation, counted) in
                [("apply-diff", format!("received={}", archive.len())), ("diff", format!("sent={written}"))]
            {
                let is_it = |line: &&str| line.contains(&format!(" operation={operation} "));
                let line = log.lines().find(is_it).context("no such line")?;
                ensure!(line.split(' ').any(|field| field == counted), "{counted} is not in {line}");
            }
            Ok(())
        }),
        case("control: a command that is killed while it reads a layer holds nothing", |place| {
            let (store, service) = owned(place)?;
            store.layer("base", None, &[file("a", vec![1; 8 << 20]), file("b", "b")])?;
            let mut command = store.command(["diff", "base"]).stdout(Stdio::piped()).spawn()?;
            let mut stdout = command.stdout.take().context("no pipe")?;
            stdout.read_exact(&mut [0; 100_000])?;
            command.kill()?;
            command.wait()?;
            store.ok(["remove", "base"])?;
            drop(stdout);
            store.knows_nothing_of("base")?;
            answers(&service, &store)
        }),
        case(
            "control: a service that is killed leaves the store to the command line, mounts and counts too",
            |place| {
                let (store, service) = owned(place)?;
                store.layer("base", None, &[file("a", "a")])?;
                store.create("child", Some("base"))?;
                let path = store.get("child")?;
                end(service, Signal::SIGKILL)?;
                ensure!(fs::read(path.join("a"))? == b"a", "the mount is gone");
                ensure!(store.references("child")? == 1, "the count is {}", store.references("child")?);
                store.put("child")?;
                ensure!(mounts_below(store.root()).is_empty(), "the put did not unmount");
                Ok(())
            },
        )
        .needs(overlay),
        case("control: a service that was ended leaves nothing behind that leads to it", |place| {
            let (store, service) = owned(place)?;
            store.create("base", None)?;
            let socket = service.path("socket");
            let announced = announced(&store)?;
            ensure!(announced.exists(), "{} is not there", announced.display());
            let status = end(service, Signal::SIGTERM)?;
            ensure!(status == 0, "exit status {status}");
            ensure!(fs::symlink_metadata(&announced).is_err(), "{} is there", announced.display());
            ensure!(!socket.exists(), "{} is there", socket.display());
            store.ok(["exists", "base"]).map(drop)
        }),
        case("control: what leads to no service, or to one of another store, is passed by", stale),
        case("control: a copy of a store that a service owns is a store of its own", copy),
        case("control: a service is found by any path to its store", by_any_path)
            .needs(Need::Filesystem("overlay")),
        case("control: a service that does not answer: 4, and its process is named", |place| {
            let (store, service) = owned(place)?;
            store.create("base", None)?;
            service.signal(Signal::SIGSTOP)?;
            let output = store.run(["exists", "base"])?.expect(4)?;
            let owner = format!("process {}", service.id());
            output.says(&owner)?;
            service.signal(Signal::SIGCONT)?;
            store.ok(["exists", "base"]).map(drop)
        })
        .early(),
        case("control: a command waits for a service that is about to answer", |place| {
            let (store, service) = owned(place)?;
            store.create("base", None)?;
            service.signal(Signal::SIGSTOP)?;
            let mut command = store.command(["exists", "base"]).spawn()?;
            std::thread::sleep(Duration::from_millis(500));
            service.signal(Signal::SIGCONT)?;
            ensure!(command.wait()?.success(), "it did not wait");
            Ok(())
        }),
        case("control: a service is named, and makes the store that is not there", |place| {
            let other = Store::new(place.join("other"), Dialect::Overlay);
            let (store, service) = owned(place)?;
            run(&mut named(&service, &other, ["list"]), b"")?.expect(3)?;
            let aufs = Store::new(place.join("aufs"), Dialect::Aufs);
            run(&mut named(&service, &aufs, ["create", "base"]), b"")?.expect(0)?;
            ensure!(
                aufs.ok(["status"])?.contains("Backend: aufs"),
                "it is of another backend than was asked for"
            );
            run(&mut named(&service, &other, ["create", "base"]), b"")?.expect(0)?;
            ensure!(announced(&other)?.exists(), "the store is not announced");
            other.ok(["exists", "base"])?;
            store.run(["exists", "base"])?.expect(3)?;
            end(service, Signal::SIGTERM)?;
            other.ok(["exists", "base"]).map(drop)
        }),
        case("control: a service that was given no socket is found through its store", |place| {
            let store = Store::new(place.join("s"), Dialect::Overlay);
            store.create("base", None)?;
            let mut command = on(&store);
            command.arg("serve");
            let service = Service::spawn(place, command)?;
            store.create("child", Some("base"))?;
            eventually("the log has the call", || Ok(service.log()?.contains("operation=create")))?;
            let announced = announced(&store)?;
            let socket = fs::read_link(&announced)?;
            end(service, Signal::SIGTERM)?;
            ensure!(!socket.exists() && !announced.exists(), "{} is there", socket.display());
            Ok(())
        }),
        case("control: no service where one is named: 1, with a hint", |place| {
            let store = Store::new(place.join("s"), Dialect::Overlay);
            store.create("base", None)?;
            let dead = place.join("dead");
            drop(UnixListener::bind(&dead)?);
            for (socket, why) in [
                (place.join("nowhere"), "No such file"),
                (dead, "Connection refused"),
                (store.root().to_owned(), ""),
            ] {
                let mut command = store.command(["list"]);
                command.env("LAYERBOX_SOCKET", &socket);
                run(&mut command, b"")?.expect(1)?.says(why)?.says("hint: ")?;
            }
            Ok(())
        }),
        case("control: nobody else is answered, and cannot even connect", foreign)
            .alone()
            .needs(Need::Tool("chroot")),
        case("control: another component or backend than the service's: 4", |place| {
            let (store, _service) = owned(place)?;
            store.create("base", None)?;
            run(on(&store).args(["list", "--backend", "aufs"]), b"")?
                .expect(4)?
                .says("is of backend overlay")?;
            let mut command = store.command(["list"]);
            command.arg("--guest").arg(component(place, "plain")?);
            run(&mut command, b"")?.expect(4)?.says("the service decides")?;
            let mut command = store.command(["list"]);
            command.arg("--guest").arg(component(place, "driver")?);
            run(&mut command, b"")?.expect(0)?;
            let mut command = store.command(["list", "--guest-sha256", &"0".repeat(64)]);
            run(&mut command, b"")?.expect(4)?.says("the service decides").map(drop)
        }),
        case("control: many command lines at once", |place| {
            let (store, _service) = owned(place)?;
            store.create("base", None)?;
            std::thread::scope(|scope| {
                let threads: Vec<_> = (0..8)
                    .map(|thread| {
                        let store = &store;
                        scope.spawn(move || {
                            (0..5).try_for_each(|number| {
                                let id = format!("l{thread}-{number}");
                                store.layer(&id, Some("base"), &[file(&id[..], "x")])?;
                                ensure!(
                                    store.changes(&id)? == [format!("A /{id}")],
                                    "{id} holds something else"
                                );
                                store.ok(["remove", &id]).map(drop)
                            })
                        })
                    })
                    .collect();
                threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| bail!("a panic")))
            })?;
            store.run(["check"])?.expect(0).map(drop)
        }),
    ]
}

/// A command on a store, without a word about its backend.
fn on(store: &Store) -> Command {
    let mut command = bare();
    command.arg("--root").arg(store.root());
    command
}

/// A store with a service that owns it.
fn owned(place: &Place) -> Result<(Store, Service)> {
    let store = Store::new(place.join("s"), Dialect::Overlay);
    store.create("first", None)?;
    let service = serve(place, &store)?;
    Ok((store, service))
}

/// A service for a store, at the socket `socket`.
fn serve(place: &Place, store: &Store) -> Result<Service> {
    let mut command = on(store);
    command.arg("--socket").arg(place.join("socket")).arg("serve");
    Service::spawn(place, command)
}

/// A call of the binary that names a service, not yet made.
fn named<'a>(service: &Service, store: &Store, arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = store.command(arguments);
    command.arg("--socket").arg(service.path("socket"));
    command
}

/// Holds a service to be there.
fn answers(service: &Service, store: &Store) -> Result<()> {
    run(&mut named(service, store, ["list"]), b"")?.expect(0).map(drop)
}

/// Ends a service with a signal, and gives its exit status.
fn end(mut service: Service, signal: Signal) -> Result<i32> {
    service.signal(signal)?;
    service.wait()
}

/// Where the service of a store is announced.
fn announced(store: &Store) -> Result<PathBuf> {
    Ok(runtime(store.root()).context("no store")?.join("service"))
}

fn stale(place: &Place) -> Result<()> {
    let store = Store::new(place.join("mine"), Dialect::Overlay);
    store.create("base", None)?;
    let (_other, service) = owned(place)?;
    let announced = announced(&store)?;
    let dead = place.join("dead");
    drop(UnixListener::bind(&dead)?);
    fs::write(place.join("file"), "")?;
    for target in
        [place.join("nowhere"), dead, place.join("file"), place.path().to_owned(), service.path("socket")]
    {
        symlink(&target, &announced)?;
        let output = store.run(["exists", "base"])?;
        fs::remove_file(&announced)?;
        output.expect(0).with_context(|| format!("a link to {}", target.display()))?;
    }
    Ok(())
}

fn copy(place: &Place) -> Result<()> {
    let (store, service) = owned(place)?;
    store.layer("base", None, &[file("f", "f")])?;
    let copy = Store::new(place.join("copy"), Dialect::Overlay);
    shell("cp -a \"$1\" \"$2\"", [store.root(), copy.root()])?;
    copy.ok(["remove", "base"])?;
    copy.knows_nothing_of("base")?;
    ensure!(store.content("base").join("f").exists(), "it was removed from the first one");
    // The service owns it as well when it is asked to, and each is told from the other.
    run(&mut named(&service, &copy, ["create", "second"]), b"")?.expect(0)?;
    let services = [&store, &copy].map(announced);
    for announced in services {
        ensure!(announced?.exists(), "a store is not announced");
    }
    copy.ok(["exists", "second"])?;
    store.run(["exists", "second"])?.expect(3)?;
    store.ok(["exists", "base"])?;
    copy.run(["exists", "base"])?.expect(3)?;
    // Nor does one that another service owns become this one's.
    let other = Store::new(place.join("other"), Dialect::Overlay);
    shell("cp -a \"$1\" \"$2\"", [store.root(), other.root()])?;
    let inner = place.directory_for("other-service")?;
    let _second = serve(&inner, &other)?;
    other.create("third", None)?;
    store.run(["exists", "third"])?.expect(3)?;
    for store in [&store, &copy, &other] {
        ensure!(store.ok(["--json", "check"])?.trim() == "[]", "a check finds something");
    }
    Ok(())
}

fn by_any_path(place: &Place) -> Result<()> {
    let (store, service) = owned(place)?;
    store.layer("base", None, &[file("f", "f")])?;
    store.create("child", Some("base"))?;
    let path = place.make("path")?;
    mount(Some(store.root()), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    let bound = Store::new(path, Dialect::Overlay);
    // It mounts where the service has the store.
    ensure!(bound.get("child")? == store.root().join("mnt/child"), "it is got elsewhere");
    ensure!(store.references("child")? == 1 && bound.references("child")? == 1, "it is counted twice");
    bound.put("child")?;
    let log = service.log()?;
    ensure!(log.contains("operation=put"), "the service did not do it: {log}");
    ensure!(store.references("child")? == 0, "it is still counted");
    Ok(())
}

fn foreign(place: &Place) -> Result<()> {
    let (store, service) = owned(place)?;
    let root = place.make("root")?;
    tool("mount", ["--rbind", "/", utf8(&root)?].map(AsRef::as_ref))?;
    let copy = copied(place)?;
    let call = || {
        let mut command = Command::new("chroot");
        command.arg("--userspec=65534:65534").arg(&root).arg(&copy).arg("--root").arg(store.root());
        command.arg("--socket").arg(service.path("socket")).arg("list");
        run(&mut command, b"")
    };
    let mode = fs::metadata(service.path("socket"))?.permissions().mode();
    ensure!(mode & 0o777 == 0o600, "the mode of the socket is {mode:o}");
    call()?.expect(1)?.says("Permission denied")?;
    // Whoever opens the socket to others does not open the service to them.
    fs::set_permissions(service.path("socket"), fs::Permissions::from_mode(0o666))?;
    call()?.expect(1)?.says("no service answers")?;
    answers(&service, &store)?;
    store.ok(["list"]).map(drop)
}
