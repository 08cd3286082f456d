//! A component that wants a socket. `layerbox --guest` and `guest inspect` must refuse it, and name what it
//! asks for.

wit_bindgen::generate!({
    path: "wit",
    world: "layerbox:sockets/greedy",
    generate_all,
});

struct Greedy;

impl Guest for Greedy {
    fn ask() -> bool {
        let network = wasi::sockets::instance_network::instance_network();
        drop(network);
        true
    }
}

export!(Greedy);
