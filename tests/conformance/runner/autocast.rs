//! [`Probe`]: a module that calls one of torch's functions, and remembers the type of the result.

use std::sync::{Arc, Mutex};

use neurarch::components::module::DynModule;
use neurarch::kernels::ir::trace::Trace;
use neurarch::kernels::ops::activation::gelu::Approximate;
use neurarch::kernels::ops::spatial::convolution::Convolution;
use neurarch::kernels::ops::spatial::interpolate::{InterpolateMode, Interpolation};
use neurarch::kernels::ops::spatial::pad::PadMode;
use neurarch::kernels::ops::spatial::pool::Pooling;
use neurarch::prelude::*;

use crate::runner::case::{Checked, Stop};

/// Calls a function with numbers of given shapes and types.
#[derive(Component, Clone, Debug)]
#[component(immutable)]
pub struct Probe {
    op: String,
    /// The shapes of the tensors, in order.
    shapes: Vec<Vec<usize>>,
    /// Their types in turn.
    dtypes: Vec<Dtype>,
    /// Whole numbers of the expression: of `torch.tensor([..])`, and all others.
    listed: Vec<i64>,
    numbers: Vec<f64>,
    layer: Option<Box<dyn DynModule>>,
    found: Arc<Mutex<Option<Dtype>>>,
}

/// The layer is an entity once it is spawned.
impl PartialEq for Probe {
    fn eq(&self, other: &Self) -> bool {
        (&self.op, &self.shapes, &self.dtypes) == (&other.op, &other.shapes, &other.dtypes)
    }
}

/// Takes what stands between `open` and the next `]` or `)` out of a text.
fn take(text: &mut String, open: &str) -> Option<Vec<f64>> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut places = text.match_indices(open).map(|(start, _)| start);
    let start = places.find(|&start| !text[..start].ends_with(is_name))?;
    let inside = start + open.len();
    let end = inside + text[inside..].find([')', ']'])?;
    let numbers = text[inside..end].split(',').filter_map(|part| match part.trim() {
        "True" => Some(1.0),
        "False" => Some(0.0),
        number => number.parse().ok(),
    });
    let numbers = numbers.collect();
    text.replace_range(start..=end, "");
    Some(numbers)
}

impl Probe {
    /// Reads a Python expression.
    pub fn new(op: &str, expression: &str, dtypes: Vec<Dtype>) -> Checked<Self> {
        let mut text = expression.to_owned();
        let mut listed = Vec::new();
        while let Some(numbers) = take(&mut text, "torch.tensor([") {
            listed.extend(numbers.into_iter().map(|number| number as i64));
        }
        let mut shapes = Vec::new();
        while let Some(sizes) = take(&mut text, "x(") {
            shapes.push(sizes.into_iter().map(|size| size as usize).collect::<Vec<_>>());
        }
        if shapes.is_empty() || dtypes.is_empty() {
            return Err(Stop::Needs(format!("needs the expression {expression}")));
        }
        // Names of functions have numbers, too: they stand before the first bracket.
        let rest = text.split_once(['(', ' ']).map_or("", |(_, rest)| rest);
        let is_number = |c: char| c.is_ascii_digit() || c == '.' || c == '-';
        let numbers = rest.split(|c| !is_number(c)).filter_map(|part| part.parse().ok());
        let numbers: Vec<f64> = numbers.collect();
        let layer = layer(op, &shapes[0], &numbers);
        Ok(Probe {
            op: op.to_owned(),
            shapes,
            dtypes,
            listed,
            numbers,
            layer,
            found: Arc::default(),
        })
    }

    /// Gives the type of the result, once the function was called.
    pub fn dtype(&self) -> Option<Dtype> {
        *self.found.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Gives the layer of a function that is none of `Var`.
fn layer(op: &str, shape: &[usize], numbers: &[f64]) -> Option<Box<dyn DynModule>> {
    let sizes = || numbers.iter().map(|&size| size as usize).collect::<Vec<_>>();
    let channels = shape.get(1).copied().unwrap_or(1);
    Some(match (op, shape.len()) {
        ("layer_norm", _) => {
            Box::new(LayerNorm { elementwise_affine: false, ..LayerNorm::new(sizes()) })
        }
        ("rms_norm", _) => Box::new(RMSNorm { elementwise_affine: false, ..RMSNorm::new(sizes()) }),
        ("group_norm", _) => {
            let groups = sizes().first().copied().unwrap_or(1);
            Box::new(GroupNorm { affine: false, ..GroupNorm::new(groups, channels) })
        }
        ("batch_norm", 2 | 3) => Box::new(BatchNorm1d {
            affine: false,
            track_running_stats: false,
            ..BatchNorm1d::new(channels)
        }),
        ("batch_norm", _) => Box::new(BatchNorm2d {
            affine: false,
            track_running_stats: false,
            ..BatchNorm2d::new(channels)
        }),
        ("instance_norm", 3) => Box::new(InstanceNorm1d::new(channels)),
        ("instance_norm", _) => Box::new(InstanceNorm2d::new(channels)),
        ("dropout", _) => Box::new(Dropout { p: numbers.first().copied().unwrap_or(0.5) }),
        _ => return None,
    })
}

impl Module for Probe {
    fn declare(&self, declare: &mut Declare) {
        if let Some(layer) = &self.layer {
            declare.children.push(("layer".to_owned(), layer.clone()));
        }
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        let trace = call.trace;
        let given: Vec<Var> = self
            .shapes
            .iter()
            .zip(self.dtypes.iter().cycle())
            .map(|(shape, &dtype)| trace.constant(0.5, dtype, shape.clone()))
            .collect();
        let y = match self.layer {
            Some(_) => Some(call.child("layer", &given[0])),
            None => self.call(trace, &given),
        };
        let Some(y) = y.filter(|y| y.id().is_some()) else { return trace.poison() };
        *self.found.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(y.dtype());
        // What is not used is not planned.
        x + y.to(Dtype::F32).sum(&[], false) * 0.0
    }
}

impl Probe {
    /// Calls the function; gives nothing if there is no such function here.
    fn call(&self, trace: &Trace, x: &[Var]) -> Option<Var> {
        let a = &x[0];
        let b = || x.get(1).unwrap_or(a);
        let c = || x.get(2).unwrap_or(a);
        let mean = Reduction::Mean;
        let number = |n: f64| trace.constant(n, a.dtype(), []);
        let first = self.numbers.first().copied().unwrap_or(1.0);
        let axis = first as isize;
        let spatial = a.shape().rank().saturating_sub(2);
        let listed = |dtype: Dtype| {
            let numbers = self.listed.iter().map(|&n| trace.constant(n as f64, dtype, [1]));
            let numbers: Vec<_> = numbers.collect();
            match numbers.is_empty() {
                true => trace.poison(),
                false => Var::cat(&numbers.iter().collect::<Vec<_>>(), 0),
            }
        };
        let classes = || listed(Dtype::I64);
        let number_dtype = if a.dtype() == Dtype::F64 { Dtype::F64 } else { Dtype::F32 };
        let convolution = || Convolution {
            stride: vec![1; spatial],
            padding: vec![(0, 0); spatial],
            dilation: vec![1; spatial],
            groups: 1,
        };
        let pooling = || Pooling {
            kernel_size: vec![first as usize; spatial],
            stride: vec![first as usize; spatial],
            padding: vec![0; spatial],
            dilation: vec![1; spatial],
            ceil_mode: false,
        };
        let sizes = || vec![Some(first as usize); spatial];
        let factor = |mode| Interpolation {
            scale_factor: Some(vec![first]),
            mode,
            ..Interpolation::default()
        };
        let pads = || {
            let pairs = self.numbers.chunks_exact(2).map(|of| (of[0] as isize, of[1] as isize));
            pairs.rev().collect::<Vec<_>>()
        };
        Some(match self.op.as_str() {
            "mm" => a.mm(b()),
            "matmul" => a.matmul(b()),
            "bmm" => a.bmm(b()),
            "mv" => a.mv(b()),
            "dot" => a.dot(b()),
            "addmm" => a.addmm(b(), c()),
            "baddbmm" => a.baddbmm(b(), c()),
            "addbmm" => a.addbmm(b(), c()),
            "einsum" => trace.einsum("ij,jk->ik", &[a, b()]),
            "linear" => a.linear(b(), x.get(2)),
            "bilinear" => a.bilinear(b(), c(), None),
            "conv1d" | "conv2d" | "conv3d" => a.convolution(b(), x.get(2), &convolution()),
            "conv_transpose1d" | "conv_transpose2d" | "conv_transpose3d" => {
                a.conv_transpose(b(), x.get(2), &convolution(), &vec![0; spatial])
            }
            "scaled_dot_product_attention" => {
                a.scaled_dot_product_attention(b(), c(), AttentionOptions::default())
            }
            "prelu" => a.prelu(b()),
            "add" => a + b(),
            "sub" => a - b(),
            "mul" => a * b(),
            "div" => a / b(),
            "maximum" => a.maximum(b()),
            "minimum" => a.minimum(b()),
            "where" => listed(Dtype::Bool).where_(a, b()),
            "cat" => Var::cat(&x.iter().collect::<Vec<_>>(), 0),
            "stack" => Var::stack(&x.iter().collect::<Vec<_>>(), 0),
            "relu" => a.relu(),
            "gelu" => a.gelu(Approximate::None),
            "silu" => a.silu(),
            "sigmoid" => a.sigmoid(),
            "tanh" => a.tanh(),
            "softplus" => a.softplus(&number(1.0), &number(20.0)),
            "exp" => a.exp(),
            "log" => a.log(),
            "pow" => a.pow(first),
            "rsqrt" => a.rsqrt(),
            "sqrt" => a.sqrt(),
            "sum" => a.sum(&[], false),
            "mean" => a.mean(&[], false),
            "prod" => a.prod(None, false),
            "cumsum" => a.cumsum(axis),
            "norm" => a.norm(2.0),
            "var" => a.var(&[], 1.0, false),
            "logsumexp" => a.logsumexp(&[axis], false),
            "softmax" => a.softmax(axis),
            "log_softmax" => a.log_softmax(axis),
            "cdist" => a.cdist(b(), 2.0),
            "max_pool1d" | "max_pool2d" | "max_pool3d" => a.max_pool(&pooling())[0].clone(),
            "avg_pool1d" | "avg_pool2d" | "avg_pool3d" => a.avg_pool(&pooling(), true, None),
            "adaptive_avg_pool1d" | "adaptive_avg_pool2d" | "adaptive_avg_pool3d" => {
                a.adaptive_avg_pool(&sizes())
            }
            "adaptive_max_pool1d" | "adaptive_max_pool2d" | "adaptive_max_pool3d" => {
                a.adaptive_max_pool(&sizes())[0].clone()
            }
            "upsample_nearest1d" | "upsample_nearest2d" | "upsample_nearest3d" => {
                a.interpolate(&factor(InterpolateMode::Nearest))
            }
            "upsample_linear1d" => a.interpolate(&factor(InterpolateMode::Linear)),
            "upsample_bilinear2d" => a.interpolate(&factor(InterpolateMode::Bilinear)),
            "upsample_bicubic2d" => a.interpolate(&factor(InterpolateMode::Bicubic)),
            "upsample_trilinear3d" => a.interpolate(&factor(InterpolateMode::Trilinear)),
            "reflection_pad1d" | "reflection_pad2d" | "reflection_pad3d" => {
                a.pad(&pads(), PadMode::Reflect)
            }
            "replication_pad1d" | "replication_pad2d" | "replication_pad3d" => {
                a.pad(&pads(), PadMode::Replicate)
            }
            "constant_pad_nd" => a.constant_pad(&pads(), &number(0.0)),
            "embedding" => classes().embedding(a, None, false),
            "cosine_similarity" => a.cosine_similarity(b(), 1, &number(1e-8)),
            "mse_loss" => a.mse_loss(b(), mean),
            "l1_loss" => a.l1_loss(b(), mean),
            "smooth_l1_loss" => a.smooth_l1_loss(b(), &number(1.0), mean),
            "huber_loss" => a.huber_loss(b(), &number(1.0), mean),
            "nll_loss" => a.nll_loss(&classes(), None, -100, mean),
            "cross_entropy" => a.cross_entropy(&classes(), None, &number(0.0), -100, mean),
            "kl_div" => a.kl_div(b(), false).mean(&[], false),
            "binary_cross_entropy" => a.binary_cross_entropy(b(), None, mean),
            "binary_cross_entropy_with_logits" => {
                a.binary_cross_entropy_with_logits(b(), None, None, mean)
            }
            "margin_ranking_loss" => a.margin_ranking_loss(b(), c(), &number(0.0), mean),
            "triplet_margin_loss" => {
                let (margin, eps) = (number(1.0), number(1e-6));
                a.triplet_margin_loss(b(), c(), &margin, 2.0, &eps, false, mean)
            }
            "soft_margin_loss" => a.soft_margin_loss(b(), mean),
            "cosine_embedding_loss" => {
                a.cosine_embedding_loss(b(), &listed(number_dtype), &number(0.0), mean)
            }
            "poisson_nll_loss" => a.poisson_nll_loss(b(), true, false, &number(1e-8), mean),
            "hinge_embedding_loss" => {
                a.hinge_embedding_loss(&listed(number_dtype), &number(1.0), mean)
            }
            _ => return None,
        })
    }
}
