//! The layer of an operator is where the module that runs it is in its model: fields, indices and containers lead
//! there.

use std::sync::{Arc, Mutex};

use binade_amp::{CastPolicy, Policy};
use binade_autograd::scope::{self, Event, Phase};
use binade_autograd::{Var, checkpoint};
use binade_cpu as _;
use binade_nn::{
    Activation, Checkpointed, Dropout, Layer, Linear, Module, Optimizer, Result, Sequential, Sgd, Visitor, state_dict,
};
use binade_tensor::DType;
use binade_tensor::op::Unary::{Relu, Tanh};

fn data() -> Var {
    let values: Vec<f32> = (0..8).map(|i| 0.1 + (i as f32 * 0.61).sin()).collect();
    Var::from_slice(&values, &[2, 4]).unwrap()
}

fn linear() -> Linear {
    Linear::new(4, 4).unwrap()
}

/// Operators with their layers, as "relu act".
fn operators(phase: Phase, f: impl FnOnce()) -> Vec<String> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    let observer: scope::Observer = Arc::new(move |event: &Event<'_>| {
        if event.phase == phase && !event.op.is_conversion() {
            sink.lock().unwrap().push(format!("{} {}", event.op.name(), event.path));
        }
    });
    scope::with_observer(observer, f);
    std::mem::take(&mut *seen.lock().unwrap())
}

fn forward(net: &impl Layer) -> Vec<String> {
    operators(Phase::Forward, || drop(net.forward(&data()).unwrap()))
}

#[derive(Clone, Module)]
struct Block {
    act: Activation,
    linear: Linear,
}

impl Block {
    fn new() -> Block {
        Block { act: Activation(Relu), linear: linear() }
    }
}

impl Layer for Block {
    fn run(&self, x: &Var) -> Result<Var> {
        // An operator in front of the first parameter, a layer without any, a residual sum.
        let h = self.linear.forward(&self.act.forward(&x.neg()?)?)?;
        Ok(x.add(&h)?)
    }
}

const BLOCK: [&str; 4] = ["neg", "relu .act", "matmul .linear", "add"];

fn block(path: &str) -> Vec<String> {
    let whole =
        |op: &str| if op.contains(' ') { op.replacen(' ', &format!(" {path}"), 1) } else { format!("{op} {path}") };
    BLOCK.iter().map(|op| whole(op)).collect()
}

#[derive(Clone, Module)]
struct Net {
    blocks: Vec<Block>,
    maybe: Option<Block>,
    pair: [Block; 2],
    any: Arc<dyn Layer>,
    #[module(rename = "seq")]
    sequential: Sequential,
    #[module(flatten)]
    flat: Block,
}

impl Net {
    fn new() -> Net {
        let sequential =
            Sequential::new().then(linear()).then(Activation(Tanh)).then(Sequential::new().then(Block::new()));
        Net {
            blocks: vec![Block::new(), Block::new()],
            maybe: Some(Block::new()),
            pair: [Block::new(), Block::new()],
            any: Arc::new(Block::new()),
            sequential,
            flat: Block::new(),
        }
    }

    fn expected() -> Vec<String> {
        let blocks = ["blocks.0", "blocks.1", "maybe", "pair.0", "pair.1", "any"].iter().flat_map(|path| block(path));
        let sequential = ["matmul seq.0", "tanh seq.1"].map(String::from).into_iter().chain(block("seq.2.0"));
        let flat = ["neg ", "relu act", "matmul linear", "add ", "sqrt "].map(String::from);
        blocks.chain(sequential).chain(flat).collect()
    }
}

impl Layer for Net {
    fn run(&self, x: &Var) -> Result<Var> {
        let mut x = x.clone();
        for block in self.blocks.iter().chain(&self.maybe).chain(&self.pair) {
            x = block.forward(&x)?;
        }
        x = self.flat.forward(&self.sequential.forward(&self.any.forward(&x)?)?)?;
        Ok(x.sqrt()?)
    }
}

#[test]
fn fields_indices_and_containers_lead_to_a_layer() {
    assert_eq!(forward(&Net::new()), Net::expected());
}

#[test]
fn what_was_made_of_the_model_or_of_its_parts_changes_nothing() {
    type Made = fn(&Net);
    let made: [(&str, Made); 6] = [
        ("an optimiser of a part", |n| drop(Optimizer::new(&n.blocks[1], Sgd::default()).unwrap())),
        ("a state dict of a part", |n| drop(state_dict(&n.sequential))),
        ("an optimiser of the whole", |n| drop(Optimizer::new(n, Sgd::default()).unwrap())),
        ("a part run by itself", |n| drop(forward(&n.blocks[0]))),
        ("a backward pass", |n| drop(n.forward(&data()).unwrap().sum(&[], false).unwrap().backward().unwrap())),
        ("a clone in another model", |n| drop(forward(&Sequential::new().then(n.clone())))),
    ];
    for (what, make) in made {
        let net = Net::new();
        make(&net);
        assert_eq!(forward(&net), Net::expected(), "{what}");
    }
    let net = Net::new();
    assert_eq!(forward(&net.clone()), Net::expected(), "a clone");
    assert_eq!(forward(&net.deep_copy().unwrap()), Net::expected(), "a deep copy");
    let elsewhere = std::thread::scope(|s| s.spawn(|| forward(&net)).join().unwrap());
    assert_eq!(elsewhere, Net::expected(), "another thread");
    let moved = Box::new(net);
    assert_eq!(forward(&*moved), Net::expected(), "moved");
}

#[test]
fn a_part_that_is_replaced_or_exchanged_is_found_where_it_is_now() {
    let mut net = Net::new();
    assert_eq!(forward(&net), Net::expected());
    net.blocks.reverse();
    net.blocks.push(Block::new());
    let longer = forward(&net);
    assert_eq!(longer[..12], [block("blocks.0"), block("blocks.1"), block("blocks.2")].concat());
    net.blocks.pop();
    net.any = Arc::new(Sequential::new().then(Activation(Relu)));
    assert!(forward(&net).contains(&"relu any.0".to_string()));
}

#[test]
fn a_part_of_a_named_whole_keeps_its_path_when_it_runs_alone() {
    let net = Net::new();
    net.assign_names();
    assert_eq!(forward(&net.blocks[1]), block("blocks.1"));
    let inner = Sequential::new().then(linear()).then(Activation(Tanh));
    let whole = Sequential::new().then(linear()).then(inner.clone());
    whole.assign_names();
    assert_eq!(forward(&inner), ["matmul 1.0", "tanh 1.1"]);
}

#[test]
fn a_shared_layer_is_named_by_the_place_that_runs_it() {
    #[derive(Clone, Module)]
    struct Tied {
        first: Block,
        second: Block,
        left: Sequential,
        right: Sequential,
    }
    impl Layer for Tied {
        fn run(&self, x: &Var) -> Result<Var> {
            let x = self.second.forward(&self.first.forward(x)?)?;
            self.left.forward(&self.right.forward(&x)?)
        }
    }
    let shared = Sequential::new().then(linear()).then(Activation(Relu));
    let first = Block::new();
    let tied = Tied { second: first.clone(), first, left: shared.clone(), right: shared };
    let both = ["matmul right.0", "relu right.1", "matmul left.0", "relu left.1"].map(String::from);
    assert_eq!(forward(&tied), [block("first"), block("second"), both.to_vec()].concat());
}

#[test]
fn recomputation_adds_nothing_to_the_path() {
    let plain = Sequential::new().then(Block::new()).then(Block::new());
    let checkpointed = Sequential::new().then(Checkpointed::new(Block::new())).then(Block::new());
    assert_eq!(forward(&checkpointed), forward(&plain));
    let names = |s: &Sequential| s.named_parameters().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(names(&checkpointed), names(&plain));
    let y = checkpointed.forward(&data()).unwrap().sum(&[], false).unwrap();
    let again = operators(Phase::Backward, || drop(y.backward().unwrap()));
    let second_run: Vec<&str> = BLOCK.iter().map(|op| op.split(' ').next().unwrap()).collect();
    for (op, named) in second_run.into_iter().zip(block("0")) {
        assert!(again.contains(&named), "{op}: {again:?}");
    }
    // A clone in a closure of one's own is known by its parameters.
    #[derive(Clone, Module)]
    struct Own {
        block: Block,
    }
    impl Layer for Own {
        fn run(&self, x: &Var) -> Result<Var> {
            let block = self.block.clone();
            let f = move |x: &[Var]| {
                block.forward(&x[0]).map_err(|e| binade_autograd::Error::Recompute { message: e.to_string() })
            };
            Ok(checkpoint(f, &[x])?)
        }
    }
    let own = forward(&Own { block: Block::new() });
    assert_eq!([&own[0], &own[2], &own[3]], ["neg block", "matmul block.linear", "add block"]);
}

#[test]
fn worker_threads_under_the_captured_scope_are_in_the_same_layer() {
    #[derive(Clone, Module)]
    struct Parallel {
        branches: Vec<Block>,
    }
    impl Layer for Parallel {
        fn run(&self, x: &Var) -> Result<Var> {
            let surrounding = scope::capture();
            let branch = |b: &Block| scope::run_in(&surrounding, || b.forward(x).unwrap());
            let outs: Vec<Var> = std::thread::scope(|s| {
                let running: Vec<_> = self.branches.iter().map(|b| s.spawn(|| branch(b))).collect();
                running.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            Ok(outs[0].add(&outs[1])?)
        }
    }
    let mut found = forward(&Parallel { branches: vec![Block::new(), Block::new()] });
    assert_eq!(found.pop().unwrap(), "add ");
    let mut expected = [block("branches.0"), block("branches.1")].concat();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn a_layer_is_left_when_it_fails_and_after_a_panic() {
    struct Fails;
    let net = Net::new();
    assert!(net.forward(&Var::from_slice(&[1.0f32; 3], &[3]).unwrap()).is_err());
    let _fails = Fails;
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| net.within(|| panic!("inside"))));
    assert!(caught.is_err() && scope::path().is_empty() && scope::place().is_none());
    assert_eq!(forward(&net), Net::expected());
}

#[test]
fn exceptions_name_layers_without_parameters_and_a_fresh_model_needs_no_names() {
    let net = Sequential::new().then(linear()).then(Activation(Tanh)).then(Dropout::new(0.0).unwrap());
    let policy = Policy::autocast(DType::F16).except("*", "1", CastPolicy::F32).unwrap();
    assert_eq!(policy.run(|| net.forward(&data())).unwrap().dtype(), DType::F32);
    policy.check_layers().unwrap();
    let policy = Policy::autocast(DType::F16).except("tanh", "0", CastPolicy::F32).unwrap();
    assert_eq!(policy.run(|| net.forward(&data())).unwrap().dtype(), DType::F16);
    // Layers without parameters are known too.
    let policy = Policy::autocast(DType::F16).except("*", "encoder", CastPolicy::F32).unwrap();
    policy.run(|| net.forward(&data())).unwrap();
    assert!(policy.check_layers().unwrap_err().to_string().contains(r#"there are ["0", "1", "2"]"#));
}
