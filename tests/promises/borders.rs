//! Safe code that lies to the engine gets an error, never undefined behavior.
//!
//! What is checked, where, and by whom is in `docs/architecture.md`; the kernels' own borders are in
//! `kernels/tests/kernels/user_op`.

use std::cell::RefCell;

use ndarray::{Array1, Array2, Array3};
use neurarch::hooks::At;
use neurarch::kernels::cpu::kernel::Cpu;
use neurarch::kernels::cpu::tile::Tile;
use neurarch::kernels::ir::eager::Eager;
use neurarch::kernels::ir::op::{Ask, Op, OpError, ask};
use neurarch::kernels::ir::program::{Role, Slot};
use neurarch::kernels::ir::shape::{Layout, Operand, Type};
use neurarch::kernels::ir::trace::Trace;
use neurarch::prelude::*;

/// More elements than any array of these tests has.
const BIG: usize = 1 << 20;

thread_local!(static KEPT: RefCell<Option<Var>> = const { RefCell::new(None) });

/// What a module does that it must not.
#[derive(Component, Clone, Debug, PartialEq)]
enum Rogue {
    /// Gives the value that it was called with the time before.
    ReturnsKept,
    /// Adds that value to this one.
    AddsKept,
    /// Stores it to a buffer.
    StoresKept,
    /// Gives a value of a trace of its own.
    OtherTrace,
    /// Asks for a value that is not there.
    NoSuchValue,
    /// Gives what stands for nothing.
    Nothing,
    /// Takes the program away.
    Finishes,
    /// Reads one slot as two types.
    SlotTwice,
    /// Reads a slot that its module has not.
    NoSuchSlot,
    /// Stores what does not fit.
    StoresLarger,
    /// Joins nothing.
    CatOfNothing,
    /// Applies an op that lies.
    Lies(Lie),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Lie {
    InPlaceLarger,
    CopiesLarger,
    FarLayout,
    Forged,
    ReadsInPlace,
    TwoInOnePlace,
}

impl Module for Rogue {
    fn declare(&self, declare: &mut Declare) {
        declare.buffer("state", [4], true);
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        let kept = || KEPT.with_borrow_mut(|kept| kept.replace(x.tanh())).unwrap_or(x.clone());
        let slot = |index, n: usize| {
            let ty = Type::new(Dtype::F32, [n]);
            Slot { name: "state".into(), role: Role::Buffer, position: 0, index, ty }
        };
        match self {
            Rogue::ReturnsKept => kept(),
            Rogue::AddsKept => &x + &kept(),
            Rogue::StoresKept => {
                let kept = kept().sum(&[], false).expand([4]);
                call.trace.store(&call.buffer("state"), &kept);
                x
            }
            Rogue::OtherTrace => Trace::new().constant(5.0, Dtype::F32, [4]),
            Rogue::NoSuchValue => call.trace.var(999_999),
            Rogue::Nothing => call.trace.poison(),
            Rogue::Finishes => {
                drop(call.trace.finish(&[]));
                x
            }
            Rogue::SlotTwice => {
                let small = call.trace.slot(slot(0, 4));
                call.trace.slot(slot(0, BIG)).sum(&[], false) + small
            }
            Rogue::NoSuchSlot => {
                call.trace.slot(Slot { position: 17, ..slot(3, 4) }) + call.trace.slot(slot(9, BIG))
            }
            Rogue::StoresLarger => {
                let large = call.trace.constant(0.0, Dtype::F32, [BIG, 4]);
                call.trace.store(&call.buffer("state"), &large);
                x
            }
            Rogue::CatOfNothing => Var::cat(&[], 0),
            Rogue::Lies(lie) => {
                let n = if *lie == Lie::TwoInOnePlace { 2 } else { 1 };
                let lied = call.trace.apply_all(std::sync::Arc::new(*lie), &[&x.tanh()], n);
                lied[0].exp().softmax(-1).sum(&[], false)
            }
        }
    }
}

impl Op for Lie {
    fn name(&self) -> &'static str {
        "lie"
    }

    fn attributes(&self) -> String {
        format!("{self:?}")
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        Ok(match self {
            Lie::InPlaceLarger | Lie::CopiesLarger => vec![Type::new(Dtype::F32, [BIG])],
            Lie::TwoInOnePlace => vec![inputs[0].clone(); 2],
            _ => vec![inputs[0].clone()],
        })
    }

    fn in_place(&self) -> &[(usize, usize)] {
        match self {
            Lie::InPlaceLarger | Lie::ReadsInPlace => &[(0, 0)],
            Lie::TwoInOnePlace => &[(0, 0), (0, 1)],
            _ => &[],
        }
    }

    fn copies_as_is(&self) -> bool {
        *self == Lie::CopiesLarger
    }

    fn layouts(&self, _: &[Operand], outputs: &[Type]) -> Vec<Layout> {
        let far = |ty: &Type| Layout::from(vec![BIG; ty.shape.rank()]);
        let own = |ty: &Type| if *self == Lie::FarLayout { far(ty) } else { ty.shape.row_major() };
        outputs.iter().map(own).collect()
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, outputs| {
            if *self == Lie::Forged {
                // The kernel of another op, for operands that this one does not have.
                let trace = Trace::new();
                let y = trace.input(Type::new(Dtype::F32, [64, 64])).tanh();
                let program = trace.finish(&[y]).unwrap();
                let layout = Layout::from(vec![BIG; inputs[0].ty.shape.rank()]);
                let far = Operand { ty: inputs[0].ty.clone(), layout };
                return ask::kernel::<Cpu>(&*program.nodes[0].op, &[far], outputs).unwrap();
            }
            Box::new(|tile: &mut Tile<'_>| {
                for model in 0..tile.models() {
                    let (inputs, mut outputs, _) = tile.model(model).split();
                    let (x, y) = (inputs.get::<f32>(0), outputs.take::<f32>());
                    let n = x.len().min(y.len());
                    y[..n].copy_from_slice(&x[..n]);
                }
            })
        });
    }
}

/// Calls a module several times, planned or eagerly, and gives the first error.
fn error_of(rogue: Rogue, is_eager: bool) -> Option<String> {
    KEPT.set(None);
    let mut world = World::new();
    let population = world.spawn_population(&rogue, 2, Seed(1)).unwrap().id();
    [64, 4, 64, 4].into_iter().find_map(|n| {
        let x = Array2::<f32>::ones((2, n));
        let found = match is_eager {
            true => {
                world.population_mut(population).unwrap().forward(Input::from(&x).requires_grad())
            }
            false => world.population_mut(population).unwrap().forward(&x),
        };
        found.err().map(|error| error.to_string())
    })
}

fn says(rogue: Rogue, expected: &str) {
    for is_eager in [false, true] {
        let error = error_of(rogue.clone(), is_eager);
        let error = error.unwrap_or_else(|| panic!("{rogue:?} is an error"));
        assert!(error.contains(expected), "{rogue:?}, eager: {is_eager}: {error}");
    }
}

#[test]
fn a_value_is_not_kept_from_one_pass_to_the_next() {
    let foreign = "Rogue: expected a value of this forward pass, got one of another";
    says(Rogue::ReturnsKept, foreign);
    says(Rogue::AddsKept, foreign);
    says(Rogue::StoresKept, foreign);
    says(Rogue::OtherTrace, foreign);
    // Its scopes went with the program.
    says(Rogue::Finishes, "expected a value of this forward pass, got one of another");
}

#[test]
fn what_is_not_there_is_an_error() {
    says(Rogue::NoSuchValue, "Rogue: expected the index of one of");
    says(Rogue::Nothing, "Rogue: expected a value, got one that stands for nothing");
    says(Rogue::SlotTwice, "Rogue: state: expected f32[4], as before, got f32[1048576]");
    says(Rogue::StoresLarger, "store to state: expected f32[4], found f32[1048576, 4]");
    says(Rogue::CatOfNothing, "Rogue: torch.cat(): expected a non-empty list of Tensors");
    for is_eager in [false, true] {
        assert!(error_of(Rogue::NoSuchSlot, is_eager).is_some());
    }
}

#[test]
fn an_op_that_lies_is_an_error() {
    for (lie, expected) in [
        (Lie::InPlaceLarger, "cannot share memory"),
        (Lie::FarLayout, "without gaps"),
        (Lie::Forged, "a kernel meets the operands that it was made for"),
        (Lie::ReadsInPlace, "changed in place through the output"),
        (Lie::TwoInOnePlace, "shares memory twice"),
    ] {
        says(Rogue::Lies(lie), expected);
    }
    // Eagerly nothing is left out.
    let error = error_of(Rogue::Lies(Lie::CopiesLarger), false).unwrap();
    assert!(error.contains("one output of its size to copy"), "{error}");
    assert_eq!(error_of(Rogue::Lies(Lie::CopiesLarger), true), None);
}

#[test]
fn a_hook_gives_values_of_its_pass_with_rows_of_their_type() {
    let mut world = World::new();
    let population = world.spawn_population(&Linear::new(4, 4), 2, Seed(1)).unwrap().id();
    let x = Array2::<f32>::ones((2, 4));
    type Way = fn(&At<'_>) -> Var;
    let ways: [(Way, &str); 2] = [
        (
            |at| {
                let ty = Type::new(Dtype::F32, [BIG]);
                at.trace.input_of_rows(ty, [&[0_u8; 4][..]; 2].into_iter())
            },
            "expected rows of f32[1048576], got 4 bytes",
        ),
        (
            |_| Trace::eager(Eager::new(2, Vec::new())).constant(1.0, Dtype::F32, [4]),
            "expected a value of this forward pass",
        ),
    ];
    let before = world.population_mut(population).unwrap().forward(&x).unwrap();
    for (way, expected) in ways {
        let hook = world
            .population_mut(population)
            .unwrap()
            .register_forward_hook(move |at, _, _| Ok(Some(way(at).into())))
            .unwrap();
        let error = world.population_mut(population).unwrap().forward(&x).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        hook.remove();
        assert_eq!(world.population_mut(population).unwrap().forward(&x).unwrap(), before);
    }
}

#[test]
fn targets_that_are_no_classes_give_nan_or_an_error() {
    let mut world = World::new();
    let population = world.spawn_population(&Linear::new(4, 4), 2, Seed(1)).unwrap().id();
    world.population_mut(population).unwrap().insert(SGD::default()).unwrap();
    let x = Array3::<f32>::ones((2, 3, 4));
    for target in [i64::MAX, i64::MIN, -1, 4, 1 << 40] {
        let targets = Array2::from_elem((2, 3), target);
        let loss: Result<Array1<f32>, _> = world.population_mut(population).unwrap().train_step(
            &x,
            &targets,
            &CrossEntropyLoss::default(),
        );
        assert!(loss.is_err() || loss.is_ok_and(|loss| loss.iter().all(|x| x.is_nan())));
    }
}
