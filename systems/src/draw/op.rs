//! [`Fill`]: an op without inputs that gives a parameter its first numbers.

use neurarch_components::module::Init;
use neurarch_kernels::cpu::kernel::{Cpu, Kernel};
use neurarch_kernels::cpu::random::Stream;
use neurarch_kernels::cpu::tile::Tile;
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::op::{Ask, Op, OpError};
use neurarch_kernels::ir::program::{Role, Slot};
use neurarch_kernels::ir::rng_key::RngKey;
use neurarch_kernels::ir::shape::Type;

use super::sample::{Sample, fill};

/// How far the counters of two steps lie apart: 2⁶⁴ divided by the golden ratio, so that those of many steps
/// are spread evenly.
const STRIDE: u64 = 0x9e37_79b9_7f4a_7c15;

/// Fills a value with numbers drawn for one slot of each model.
#[derive(Clone, Debug)]
pub(crate) struct Fill {
    init: Init,
    ty: Type,
    position: u64,
    draw: u32,
}

impl Fill {
    /// Makes the op for a slot.
    pub(crate) fn new(slot: &Slot, init: Init) -> Self {
        let (position, draw) = (slot.position as u64, draw_of(slot));
        let mut ty = slot.ty.clone();
        // A half is drawn as a single, and rounded where it is stored.
        if ty.dtype.is_half() {
            ty.dtype = Dtype::F32;
        }
        Fill { init, ty, position, draw }
    }
}

impl Op for Fill {
    fn name(&self) -> &'static str {
        "fill"
    }

    fn attributes(&self) -> String {
        format!("{:?}, position={}, draw={}", self.init, self.position, self.draw)
    }

    fn outputs(&self, _: &[Type]) -> Result<Vec<Type>, OpError> {
        Ok(vec![self.ty.clone()])
    }

    fn is_random(&self) -> bool {
        true
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|_, _| match self.ty.dtype {
            Dtype::F32 => self.kernel_of::<f32>(),
            Dtype::F64 => self.kernel_of::<f64>(),
            _ => self.kernel_of_integers(),
        });
    }
}

impl Fill {
    /// Integers and truth values: they are not drawn, and so the same for all models.
    fn kernel_of_integers(&self) -> Box<dyn Kernel> {
        let Fill { ref init, ref ty, .. } = *self;
        let mut numbers = vec![0.0_f64; ty.shape.numel()];
        fill(&mut numbers, &ty.shape, init, &mut Stream::new(RngKey::default(), 0));
        let is_wide = ty.dtype.size_bytes() == 8;
        Box::new(move |tile: &mut Tile<'_>| {
            for model in 0..tile.models() {
                let (_, mut outputs, _) = tile.model(model).split();
                if is_wide {
                    let row = outputs.take::<i64>();
                    row.iter_mut().zip(&numbers).for_each(|(to, &x)| *to = x as i64);
                } else {
                    let row = outputs.take::<u8>();
                    row.iter_mut().zip(&numbers).for_each(|(to, &x)| *to = u8::from(x != 0.0));
                }
            }
        })
    }

    fn kernel_of<T: Sample>(&self) -> Box<dyn Kernel> {
        let Fill { ref init, position, draw, .. } = *self;
        let (init, shape) = (init.clone(), self.ty.shape.clone());
        Box::new(move |tile: &mut Tile<'_>| {
            for model in 0..tile.models() {
                let model = tile.model(model);
                // The position takes the place of the step: nothing draws twice with one counter. What comes
                // later in a model's life is far from all positions.
                let key = model.key().0;
                let step = position.wrapping_add(key.step.wrapping_mul(STRIDE));
                let key = RngKey { step, ..key };
                let (_, mut outputs, _) = model.split();
                fill(outputs.take::<T>(), &shape, &init, &mut Stream::new(key, draw));
            }
        })
    }
}

/// Tells parameters from buffers in the random numbers' counters.
pub(super) fn draw_of(slot: &Slot) -> u32 {
    let index = u32::try_from(slot.index).unwrap_or(u32::MAX) & 0x3fff_ffff;
    if slot.role == Role::Buffer { index | 1 << 30 } else { index }
}
