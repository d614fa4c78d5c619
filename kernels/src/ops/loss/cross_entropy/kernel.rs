//! The kernel of cross entropy: loss, gradient, or both.
#![expect(unsafe_code, reason = "vectors are read and written through pointers into operands")]

use core::marker::PhantomData;

use super::settings::{Settings, class_axis};
use crate::arithmetic::Arithmetic;
use crate::cpu::simd::vector::Vector;
use crate::cpu::simd::{Float, Lanes, MAX_LANES, Simd};
use crate::cpu::sum::{Running, sum_of};
use crate::cpu::tile::Tile;
use crate::cpu::vector_kernel::VectorKernel;
use crate::ir::dtype::Dtype;
use crate::ir::shape::{Operand, Shape, Type};
use crate::ops::reduction::lines::{Lines, carve, scratch_bytes};
use crate::ops::reduction::reduce::Reduction;

/// Marks, in the place of a class, an item that is ignored.
const IGNORED: i32 = -1;

/// Marks, in the place of a class, an item whose target is none.
const NO_CLASS: i32 = -2;

pub(super) struct CrossEntropyKernel<T> {
    settings: Settings,
    logits: Lines,
    /// Where the gradient of the logits is written, if it is.
    gradient: Option<Lines>,
    /// For each line of the logits, the item's index in the targets.
    items: Vec<usize>,
    /// Whether these are 0, 1, 2, …
    in_order: bool,
    has_loss: bool,
    element: PhantomData<T>,
}

impl<T: Float> CrossEntropyKernel<T> {
    pub(super) fn new(
        settings: Settings,
        logits: &Operand,
        gradient: Option<&Operand>,
        has_loss: bool,
    ) -> Self {
        logits.assert_addressable();
        let shape = &logits.ty.shape;
        let has_shape = |gradient: &Operand| gradient.ty.shape == *shape;
        assert!(gradient.is_none_or(has_shape), "lines of one shape are read and written");
        let axis = class_axis(shape);
        let order = logits.layout.order(shape);
        // The targets are row-major: their offsets, visited in the order of the logits' lines.
        let kept = Shape::from_iter(
            (0..shape.rank()).map(|other| if other == axis { 1 } else { shape[other] }),
        );
        let targets = Operand::row_major(Type { dtype: Dtype::I64, shape: kept });
        let items = Lines::new(&targets, axis, &order).into_starts();
        CrossEntropyKernel {
            settings,
            logits: Lines::new(logits, axis, &order),
            gradient: gradient.map(|gradient| Lines::new(gradient, axis, &order)),
            in_order: items.iter().enumerate().all(|(line, &item)| line == item),
            items,
            has_loss,
            element: PhantomData,
        }
    }

    /// Elements of scratch memory: classes of the items, their weights, their losses, logits of a block,
    /// gradients of a block.
    fn scratch_lens(&self) -> [usize; 5] {
        let items = self.items.len().next_multiple_of(MAX_LANES);
        [items, items, items, self.logits.scratch_len(), self.logits.scratch_len()]
    }
}

impl<T: Float> VectorKernel for CrossEntropyKernel<T> {
    #[inline(always)]
    fn run<S: Simd>(&self, tile: &mut Tile<'_>) {
        let models = tile.models();
        let (inputs, mut outputs, scratch) = tile.operands();
        let (logits, targets, smoothing) = (inputs.get(0), inputs.get(1), inputs.get(2));
        let class_weights = self.settings.has_weight.then(|| inputs.get(3));
        let mut loss = self.has_loss.then(|| outputs.take());
        let mut gradient = self.gradient.is_some().then(|| outputs.take());
        let dloss = gradient.is_some().then(|| inputs.get(self.settings.n_inputs()));
        self.logits.assert_all_in(logits.numel());
        if let (Some(lines), Some(gradient)) = (&self.gradient, &gradient) {
            lines.assert_all_in(gradient.numel());
        }
        for model in 0..models {
            let operands = Operands {
                logits: logits.at(model),
                targets: targets.at(model),
                smoothing: smoothing.at(model)[0],
                class_weights: class_weights.map_or(&[], |weights| weights.at(model)),
                dloss: dloss.map(|dloss| dloss.at(model)),
                loss: loss.as_mut().map(|loss| loss.at(model)),
                gradient: gradient.as_mut().map(|gradient| gradient.at(model)),
            };
            self.model::<S>(operands, scratch);
        }
    }

    fn scratch_bytes(&self) -> usize {
        scratch_bytes::<T>(&self.scratch_lens())
    }

    fn table_bytes(&self) -> usize {
        let lines = self.gradient.iter().chain([&self.logits]).map(Lines::table_bytes);
        lines.sum::<usize>() + size_of_val(self.items.as_slice())
    }
}

/// The operands of one model.
struct Operands<'a, T> {
    logits: &'a [T],
    targets: &'a [i64],
    smoothing: T,
    /// The weight of each class; empty if all are 1.
    class_weights: &'a [T],
    /// The gradient of the loss, if that of the logits is computed.
    dloss: Option<&'a [T]>,
    loss: Option<&'a mut [T]>,
    gradient: Option<&'a mut [T]>,
}

/// What a block's formula reads beside the logits.
struct Terms<'a, T: Float, S: Simd> {
    /// The class of each item, [`IGNORED`], or NaN.
    class: T::Lanes<S>,
    /// The weight of each item's class.
    weight: T::Lanes<S>,
    /// The weight of each class; empty if all are 1.
    class_weights: &'a [T],
    /// The sum of the weights of all classes.
    all_weights: f64,
    /// `ε`.
    smoothing: f64,
    /// What the gradient of each item is multiplied by.
    scale: T::Lanes<S>,
    /// How many classes there are.
    classes: usize,
    /// How many lanes hold items.
    n: usize,
}

impl<T: Float> CrossEntropyKernel<T> {
    #[inline(always)]
    fn model<S: Simd>(&self, operands: Operands<'_, T>, scratch: &mut [u8]) {
        let lanes = T::Lanes::<S>::N;
        let settings = self.settings;
        let Operands { logits, targets, class_weights, dloss, loss, mut gradient, .. } = operands;
        let smoothing: f64 = operands.smoothing.into();
        let [classes, weights, losses, block_logits, block_gradient] =
            carve::<T, 5>(scratch, self.scratch_lens());
        let n_items = self.items.len();
        for (class, &target) in classes.iter_mut().zip(targets) {
            *class = self.class_of(target);
        }
        let total = if settings.has_weight {
            for (weight, &target) in weights.iter_mut().zip(targets) {
                *weight = self.weight_of(target, class_weights);
            }
            T::Lanes::<S>::splat(sum_of(&weights[..n_items], |weight| weight))
        } else {
            let n = targets.iter().filter(|&&target| target != settings.ignore_index).count();
            T::Lanes::<S>::splat(T::from_f64(n as f64))
        };
        let mut scale = T::Lanes::<S>::splat(T::default());
        if let Some(dloss) = dloss.filter(|_| settings.reduction != Reduction::None) {
            scale = T::Lanes::<S>::splat(dloss[0]);
            if settings.reduction == Reduction::Mean {
                scale = scale.div(total);
            }
        }
        let all_weights = match settings.has_weight {
            true => sum_of(class_weights, |weight| weight).into(),
            false => self.logits.len as f64,
        };
        let mut line = 0;
        while line < n_items {
            let n = lanes.min(n_items - line);
            let block = (line, n, lanes);
            let items = &self.items[line..line + n];
            if let (Some(dloss), Reduction::None) = (dloss, settings.reduction) {
                scale = pick::<T, S>(dloss, items);
            }
            let of_items = |x: &[T]| match self.in_order {
                // SAFETY: these parts of scratch memory are as long as whole vectors.
                true => unsafe { T::Lanes::<S>::load(x[line..line + lanes].as_ptr()) },
                false => pick::<T, S>(x, items),
            };
            let c = |x: f64| T::Lanes::<S>::splat(T::from_f64(x));
            let class = of_items(classes);
            let class = T::Lanes::<S>::select(class.eq(c(NO_CLASS.into())), c(f64::NAN), class);
            let weight = if settings.has_weight {
                of_items(weights)
            } else {
                T::Lanes::<S>::zero_where(class.eq(c(IGNORED.into())), c(1.0))
            };
            let terms = Terms::<T, S> {
                class,
                weight,
                class_weights,
                all_weights,
                smoothing,
                scale,
                classes: self.logits.len,
                n,
            };
            let from = self.logits.read::<T, S>(logits, block, block_logits);
            let item_losses = match (&self.gradient, &mut gradient) {
                (Some(lines), Some(dx)) => {
                    let to = lines.write(dx, 0, block, block_gradient);
                    // SAFETY: `read` and `write` give where `n` lines of `classes` elements lie.
                    let losses = unsafe { terms.with_gradient(from, to) };
                    lines.finish::<T, S>(dx, 0, block, block_gradient);
                    losses
                }
                // SAFETY: as above.
                _ => unsafe { terms.loss_only(from) },
            };
            if self.in_order {
                // SAFETY: this part of scratch memory is as long as whole vectors.
                unsafe { item_losses.store(losses[line..line + lanes].as_mut_ptr()) };
            } else {
                let mut spread = [T::default(); MAX_LANES];
                // SAFETY: there are at most MAX_LANES lanes.
                unsafe { item_losses.store(spread.as_mut_ptr()) };
                for (&item, &loss) in items.iter().zip(&spread) {
                    losses[item] = loss;
                }
            }
            line += n;
        }
        let Some(loss) = loss else { return };
        if settings.reduction == Reduction::None {
            loss.copy_from_slice(&losses[..n_items]);
            return;
        }
        let mut sum = T::Lanes::<S>::splat(sum_of(&losses[..n_items], |loss| loss));
        if settings.reduction == Reduction::Mean {
            sum = sum.div(total);
        }
        let loss = &mut loss[..1];
        // SAFETY: the line above gives one element.
        unsafe { sum.store_first(loss.as_mut_ptr(), 1) };
    }

    /// Gives a target as a number: its class, [`IGNORED`], or [`NO_CLASS`].
    #[inline(always)]
    fn class_of(&self, target: i64) -> T {
        // Choices and conversions of 32 bits, so that a vector can make them.
        let is_class = (target as u64) < self.logits.len as u64;
        let class = if is_class { target as i32 } else { NO_CLASS };
        let class = if target == self.settings.ignore_index { IGNORED } else { class };
        T::from_f64(f64::from(class))
    }

    /// Gives the weight of a target's class: 0 if it is ignored, NaN if it is no class.
    #[inline(always)]
    fn weight_of(&self, target: i64, class_weights: &[T]) -> T {
        if target == self.settings.ignore_index {
            return T::default();
        }
        let class = usize::try_from(target).unwrap_or(usize::MAX);
        class_weights.get(class).copied().unwrap_or(T::from_f64(f64::NAN))
    }
}

/// Reads the numbers of some items, one a lane.
#[inline(always)]
fn pick<T: Float, S: Simd>(x: &[T], items: &[usize]) -> T::Lanes<S> {
    let mut spread = [T::default(); MAX_LANES];
    for (lane, &item) in spread.iter_mut().zip(items) {
        *lane = x[item];
    }
    // SAFETY: there are at most MAX_LANES lanes.
    unsafe { T::Lanes::<S>::load(spread.as_ptr()) }
}

impl<T: Float, S: Simd> Terms<'_, T, S> {
    /// Reads class `c` of each item.
    ///
    /// # Safety
    ///
    /// `n` numbers can be read there.
    #[inline(always)]
    unsafe fn at(&self, (from, stride): (*const T, usize), c: usize) -> T::Lanes<S> {
        let from = from.wrapping_add(c * stride);
        // SAFETY: the caller's promise.
        unsafe {
            match self.n == T::Lanes::<S>::N {
                true => T::Lanes::<S>::load(from),
                false => T::Lanes::<S>::load_first(from, self.n),
            }
        }
    }

    /// Computes the losses, calling `keep` with each class's exponentials; gives also `1 / Σ e`.
    ///
    /// # Safety
    ///
    /// `x` is a place of `n` lines of `classes` elements.
    #[inline(always)]
    unsafe fn losses(
        &self,
        x: (*const T, usize),
        mut keep: impl FnMut(usize, T::Lanes<S>),
    ) -> (T::Lanes<S>, T::Lanes<S>) {
        let c = |x: f64| T::Lanes::<S>::splat(T::from_f64(x));
        let zero = c(0.0);
        // SAFETY: the caller's promise, for every class.
        let mut most = unsafe { self.at(x, 0) };
        for class in 1..self.classes {
            // SAFETY: as above.
            most = most.max(unsafe { self.at(x, class) });
        }
        let mut sum = Running::<Vector<T, S>>::new();
        // 0, or NaN where the target is no class.
        let mut of_target = self.class.mul(zero);
        let mut of_all = Running::<Vector<T, S>>::new();
        for class in 0..self.classes {
            // SAFETY: as above.
            let shifted = unsafe { self.at(x, class) }.sub(most);
            let e = Vector::<T, S>(shifted).exp().0;
            sum.add(Vector(e));
            keep(class, e);
            let is_target = self.class.eq(c(class as f64));
            of_target = T::Lanes::<S>::select(is_target, shifted, of_target);
            if self.smoothing != 0.0 {
                of_all.add_product(shifted, c(self.class_weight(class)));
            }
        }
        let Vector(sum) = sum.finish();
        let log_sum = Vector::<T, S>(sum).ln().0;
        let mut loss = log_sum.sub(of_target).mul(self.weight);
        if self.smoothing != 0.0 {
            let smooth = log_sum.mul(c(self.all_weights)).sub(of_all.finish().0);
            let share = c(self.smoothing / self.classes as f64);
            loss = smooth.mul_add(share, loss.mul(c(1.0 - self.smoothing)));
        }
        (T::Lanes::<S>::zero_where(self.class.eq(c(IGNORED.into())), loss), c(1.0).div(sum))
    }

    /// Gives the weight of a class.
    #[inline(always)]
    fn class_weight(&self, class: usize) -> f64 {
        self.class_weights.get(class).map_or(1.0, |&weight| weight.into())
    }

    /// # Safety
    ///
    /// `x` is a place of `n` lines of `classes` elements.
    #[inline(always)]
    unsafe fn loss_only(&self, x: (*const T, usize)) -> T::Lanes<S> {
        // SAFETY: the caller's promise.
        unsafe { self.losses(x, |_, _| {}) }.0
    }

    /// Computes the losses and writes the gradient.
    ///
    /// # Safety
    ///
    /// `x` and `dx` are places of `n` lines of `classes` elements.
    #[inline(always)]
    unsafe fn with_gradient(
        &self,
        x: (*const T, usize),
        (to, stride): (*mut T, usize),
    ) -> T::Lanes<S> {
        let c = |x: f64| T::Lanes::<S>::splat(T::from_f64(x));
        let zero = c(0.0);
        let put = |class: usize, y: T::Lanes<S>| {
            let to = to.wrapping_add(class * stride);
            // SAFETY: the caller's promise.
            unsafe {
                match self.n == T::Lanes::<S>::N {
                    true => y.store(to),
                    false => y.store_first(to, self.n),
                }
            }
        };
        // The exponentials wait where the gradient will be.
        // SAFETY: the caller's promise.
        let (losses, inverse_sum) = unsafe { self.losses(x, put) };
        let is_ignored = self.class.eq(c(IGNORED.into()));
        // d loss / d x_c = ((1 - ε) w_t + ε/C Σ w) p_c - (1 - ε) w_t [c = t] - ε/C w_c
        let share = self.smoothing / self.classes as f64;
        let mut of_target = self.weight;
        // NaN where the target is no class.
        let mut of_all = self.weight.add(self.class.mul(zero));
        if self.smoothing != 0.0 {
            of_target = self.weight.mul(c(1.0 - self.smoothing));
            of_all = of_target.add(self.class.mul(zero)).add(c(share * self.all_weights));
        }
        let of_all = of_all.mul(inverse_sum);
        for class in 0..self.classes {
            // SAFETY: the caller's promise; the number was written above.
            let e = unsafe { self.at((to, stride), class) };
            let is_target = self.class.eq(c(class as f64));
            let mut dx =
                e.mul_add(of_all, zero.sub(T::Lanes::<S>::select(is_target, of_target, zero)));
            if self.smoothing != 0.0 {
                dx = dx.sub(c(share * self.class_weight(class)));
            }
            let dx = dx.mul(self.scale);
            put(class, T::Lanes::<S>::zero_where(is_ignored, dx));
        }
        losses
    }
}
