//! The functions of traced values, each with settings that are drawn.

use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::packed::PackedSequence;
use neurarch_kernels::ir::trace::Var;
use neurarch_kernels::ops::activation::gelu::Approximate;
use neurarch_kernels::ops::attention::scaled_dot_product::AttentionOptions;
use neurarch_kernels::ops::index::embedding_bag::{BagMode, EmbeddingBagSettings};
use neurarch_kernels::ops::loss::linear_cross_entropy::LinearCrossEntropy;
use neurarch_kernels::ops::norm::local_response_norm::ResponseNorm;
use neurarch_kernels::ops::recurrent::sequence::PaddingSide;
use neurarch_kernels::ops::spatial::convolution::Convolution;
use neurarch_kernels::ops::spatial::fold::Blocks;
use neurarch_kernels::ops::spatial::grid_sample::{GridMode, GridOptions, GridPadding};
use neurarch_kernels::ops::spatial::interpolate::{InterpolateMode, Interpolation};
use neurarch_kernels::ops::spatial::max_pool::Window;
use neurarch_kernels::ops::spatial::pad::PadMode;
use neurarch_kernels::ops::spatial::pick::Places;
use neurarch_kernels::ops::spatial::pool::Pooling;

use super::random::Random;

/// A function of so many values, with settings that are drawn.
pub(crate) type Function = (&'static str, usize, fn(&[Var], &mut Random) -> Vec<Var>);

fn pooling(r: &mut Random) -> Pooling {
    let n = r.one_of(&[1, 2, 2, 3]);
    let of = |r: &mut Random| if r.below(8) == 0 { r.sizes() } else { r.sizes_of(n) };
    Pooling {
        kernel_size: of(r),
        stride: of(r),
        padding: if r.flag() { vec![0; n] } else { of(r) },
        dilation: if r.flag() { vec![1; n] } else { of(r) },
        ceil_mode: r.flag(),
    }
}

fn convolution(r: &mut Random) -> Convolution {
    let n = r.one_of(&[1, 2, 2, 3]);
    let of = |r: &mut Random| if r.below(8) == 0 { r.sizes() } else { r.sizes_of(n) };
    let (stride, before, after, dilation) = (of(r), of(r), of(r), of(r));
    let padding = before.into_iter().zip(after).collect();
    Convolution { stride, padding, dilation, groups: if r.flag() { 1 } else { r.size() } }
}

fn padding(r: &mut Random) -> Vec<(isize, isize)> {
    let n = r.below(4);
    (0..n).map(|_| (r.axis(), r.axis())).collect()
}

fn two_of(r: &mut Random) -> [usize; 2] {
    [r.size(), r.size()]
}

fn optional<'a>(v: &'a Var, r: &mut Random) -> Option<&'a Var> {
    r.flag().then_some(v)
}

pub(crate) const FUNCTIONS: &[Function] = &[
    ("affine_grid", 1, |v, r| vec![v[0].affine_grid(&r.sizes(), r.flag())]),
    ("argmax", 1, |v, r| vec![v[0].argmax(r.axis())]),
    ("attention", 4, |v, r| {
        let options = AttentionOptions {
            attn_mask: optional(&v[3], r),
            dropout_p: None,
            is_causal: r.flag(),
            scale: r.flag().then(|| r.number()),
            enable_gqa: r.flag(),
        };
        vec![v[0].scaled_dot_product_attention(&v[1], &v[2], options)]
    }),
    ("bilinear", 4, |v, r| vec![v[0].bilinear(&v[1], &v[2], optional(&v[3], r))]),
    ("arithmetic", 2, |v, _| {
        vec![&v[0] + &v[1], &v[0] - &v[1], &v[0] * &v[1], &v[0] / &v[1], -&v[0]]
    }),
    ("maximum", 2, |v, _| vec![v[0].maximum(&v[1]), v[0].minimum(&v[1])]),
    ("bce", 4, |v, r| {
        let reduction = r.reduction();
        let logits = v[0].binary_cross_entropy_with_logits(
            &v[1],
            optional(&v[2], r),
            optional(&v[3], r),
            reduction,
        );
        vec![v[0].binary_cross_entropy(&v[1], optional(&v[2], r), reduction), logits]
    }),
    ("soft_margin_loss", 2, |v, r| vec![v[0].soft_margin_loss(&v[1], r.reduction())]),
    ("multilabel_soft_margin_loss", 3, |v, r| {
        vec![v[0].multilabel_soft_margin_loss(&v[1], optional(&v[2], r), r.reduction())]
    }),
    ("hinge_embedding_loss", 3, |v, r| {
        vec![v[0].hinge_embedding_loss(&v[1], &v[2], r.reduction())]
    }),
    ("to", 1, |v, r| vec![v[0].to(r.one_of(&[Dtype::F32, Dtype::I64, Dtype::Bool, Dtype::F16]))]),
    ("increment", 1, |v, _| vec![v[0].increment()]),
    ("cat", 3, |v, r| vec![Var::cat(&[&v[0], &v[1], &v[2]], r.axis())]),
    ("stack", 2, |v, r| vec![Var::stack(&[&v[0], &v[1]], r.axis())]),
    ("clamp_min", 2, |v, _| vec![v[0].clamp_min(&v[1])]),
    ("compare", 3, |v, _| vec![v[0].eq(&v[1]), v[0].lt(&v[1]), v[0].where_(&v[1], &v[2])]),
    ("celu", 2, |v, _| vec![v[0].celu(&v[1]), v[0].elu(&v[1]), v[0].leaky_relu(&v[1])]),
    ("glu", 1, |v, r| {
        vec![v[0].glu(r.axis()), v[0].softmin(r.axis()), v[0].selu(), v[0].softsign()]
    }),
    ("unflatten", 1, |v, r| vec![v[0].unflatten(r.axis(), &r.axes())]),
    ("conv_tbc", 3, |v, r| vec![v[0].conv_tbc(&v[1], &v[2], r.size())]),
    ("convolution", 3, |v, r| vec![v[0].convolution(&v[1], optional(&v[2], r), &convolution(r))]),
    ("conv_transpose", 3, |v, r| {
        let settings = convolution(r);
        let more = if r.flag() { vec![0; settings.stride.len()] } else { r.sizes() };
        vec![v[0].conv_transpose(&v[1], optional(&v[2], r), &settings, &more)]
    }),
    ("cross_entropy", 4, |v, r| {
        let of = optional(&v[2], r);
        vec![v[0].cross_entropy(&v[1], of, &v[3], r.axis() as i64, r.reduction())]
    }),
    ("cross_entropy_of_probabilities", 4, |v, r| {
        vec![v[0].cross_entropy_of_probabilities(&v[1], optional(&v[2], r), &v[3], r.reduction())]
    }),
    ("linear_cross_entropy", 4, |v, r| {
        let options = LinearCrossEntropy {
            linear_bias: optional(&v[3], r),
            reduction: r.reduction(),
            ..LinearCrossEntropy::default()
        };
        vec![v[0].linear_cross_entropy(&v[1], &v[2], options)]
    }),
    ("nll_loss", 3, |v, r| {
        vec![v[0].nll_loss(&v[1], optional(&v[2], r), r.axis() as i64, r.reduction())]
    }),
    ("kl_div", 2, |v, r| vec![v[0].kl_div(&v[1], r.flag())]),
    ("poisson_nll_loss", 3, |v, r| {
        vec![v[0].poisson_nll_loss(&v[1], r.flag(), r.flag(), &v[2], r.reduction())]
    }),
    ("gaussian_nll_loss", 4, |v, r| {
        vec![v[0].gaussian_nll_loss(&v[1], &v[2], r.flag(), &v[3], r.reduction())]
    }),
    ("ctc_loss", 4, |v, r| {
        vec![v[0].ctc_loss(&v[1], &v[2], &v[3], r.size(), r.reduction(), r.flag())]
    }),
    ("detach", 1, |v, _| vec![v[0].detach(), v[0].trunc(), v[0].sign(), v[0].rsqrt()]),
    ("vector_norm", 1, |v, r| vec![v[0].vector_norm(r.number(), r.axis(), r.flag())]),
    ("pairwise_distance", 3, |v, r| {
        vec![v[0].pairwise_distance(&v[1], r.number(), &v[2], r.flag())]
    }),
    ("pdist", 1, |v, r| vec![v[0].pdist(r.number())]),
    ("cdist", 2, |v, r| vec![v[0].cdist(&v[1], r.number())]),
    ("cosine_similarity", 3, |v, r| vec![v[0].cosine_similarity(&v[1], r.axis(), &v[2])]),
    ("cosine_embedding_loss", 4, |v, r| {
        vec![v[0].cosine_embedding_loss(&v[1], &v[2], &v[3], r.reduction())]
    }),
    ("margin_ranking_loss", 4, |v, r| {
        vec![v[0].margin_ranking_loss(&v[1], &v[2], &v[3], r.reduction())]
    }),
    ("triplet_margin_loss", 5, |v, r| {
        vec![v[0].triplet_margin_loss(
            &v[1],
            &v[2],
            &v[3],
            r.number(),
            &v[4],
            r.flag(),
            r.reduction(),
        )]
    }),
    ("dropout", 2, |v, _| {
        let x = &v[0];
        vec![
            x.dropout(&v[1]),
            x.dropout1d(&v[1]),
            x.dropout2d(&v[1]),
            x.dropout3d(&v[1]),
            x.alpha_dropout(&v[1]),
            x.feature_alpha_dropout(&v[1]),
        ]
    }),
    ("einsum", 2, |v, r| {
        let equations = [
            "ij,jk->ik",
            "ij,ij",
            "...i,...i->...",
            "ii->i",
            "a,a->",
            "->",
            "ij->ji,",
            "",
            "..",
            "i j , k",
        ];
        let operands = [&v[0], &v[1]];
        vec![v[0].trace().einsum(r.one_of(&equations), &operands[..r.one_of(&[2, 2, 1, 0])])]
    }),
    ("embedding", 2, |v, r| vec![v[0].embedding(&v[1], r.flag().then(|| r.size()), r.flag())]),
    ("embedding_bag", 4, |v, r| {
        let settings = EmbeddingBagSettings {
            mode: r.one_of(&[BagMode::Sum, BagMode::Mean, BagMode::Max]),
            padding_idx: r.flag().then(|| r.size()),
            scale_grad_by_freq: r.flag(),
            include_last_offset: r.flag(),
        };
        vec![v[0].embedding_bag(&v[1], optional(&v[2], r), optional(&v[3], r), settings)]
    }),
    ("embedding_renorm", 3, |v, r| vec![v[0].embedding_renorm(&v[1], &v[2], r.number())]),
    ("expand", 1, |v, r| vec![v[0].expand(r.sizes())]),
    ("unfold", 1, |v, r| {
        let mut two = || two_of(r);
        let blocks = Blocks { kernel_size: two(), dilation: two(), padding: two(), stride: two() };
        let image = v[0].shape().to_vec();
        vec![match (r.below(3), &image[..]) {
            (0, _) => v[0].unfold(&blocks),
            (1, &[.., height, width]) => v[0].unfold(&blocks).fold([height, width], &blocks),
            _ => v[0].fold(two_of(r), &blocks),
        }]
    }),
    ("batch_norm_gather_stats_with_counts", 4, |v, _| {
        let all = v[0].batch_norm_gather_stats_with_counts(&v[1], &v[2], &v[3]);
        vec![all.mean, all.invstd, all.var, all.unbiased_var]
    }),
    ("gelu", 1, |v, _| {
        let x = &v[0];
        vec![
            x.gelu(Approximate::None),
            x.gelu(Approximate::Tanh),
            x.hardsigmoid(),
            x.hardswish(),
            x.relu6(),
            x.logsigmoid(),
            x.mish(),
            x.relu(),
            x.sigmoid(),
            x.silu(),
            x.tanh(),
            x.tanhshrink(),
        ]
    }),
    ("geqrf", 1, |v, _| v[0].geqrf().to_vec()),
    ("grid_sample", 2, |v, r| {
        let options = GridOptions {
            mode: r.one_of(&[GridMode::Bilinear, GridMode::Nearest, GridMode::Bicubic]),
            padding_mode: r.one_of(&[
                GridPadding::Zeros,
                GridPadding::Border,
                GridPadding::Reflection,
            ]),
            align_corners: r.flag(),
        };
        vec![v[0].grid_sample(&v[1], options)]
    }),
    ("gumbel_softmax", 2, |v, r| vec![v[0].gumbel_softmax(&v[1], r.flag(), r.axis())]),
    ("hardshrink", 2, |v, _| vec![v[0].hardshrink(&v[1]), v[0].softshrink(&v[1])]),
    ("hardtanh", 3, |v, r| {
        vec![
            v[0].hardtanh(&v[1], &v[2]),
            v[0].threshold(&v[1], &v[2]),
            v[0].softplus(&v[1], &v[2]),
            v[0].rrelu(&v[1], &v[2], r.flag()),
        ]
    }),
    ("interpolate", 1, |v, r| {
        let n = r.one_of(&[1, 2, 2, 3]);
        let how = Interpolation {
            size: r.flag().then(|| r.sizes_of(n)),
            scale_factor: r.flag().then(|| (0..n).map(|_| r.number()).collect()),
            mode: r.one_of(&[
                InterpolateMode::Nearest,
                InterpolateMode::NearestExact,
                InterpolateMode::Linear,
                InterpolateMode::Bilinear,
                InterpolateMode::Bicubic,
                InterpolateMode::Trilinear,
            ]),
            align_corners: r.flag().then(|| r.flag()),
            recompute_scale_factor: r.flag().then(|| r.flag()),
        };
        vec![v[0].interpolate(&how)]
    }),
    ("linear", 3, |v, r| vec![v[0].linear(&v[1], optional(&v[2], r))]),
    ("local_response_norm", 4, |v, r| {
        let norm = ResponseNorm { alpha: v[1].clone(), beta: v[2].clone(), k: v[3].clone() };
        vec![v[0].local_response_norm(r.size(), &norm), v[0].cross_map_lrn(r.size(), &norm)]
    }),
    ("multi_margin_loss", 4, |v, r| {
        let p = r.one_of(&[0, 1, 2, 3, u32::MAX]);
        vec![v[0].multi_margin_loss(&v[1], p, &v[2], optional(&v[3], r), r.reduction())]
    }),
    ("multilabel_margin_loss", 2, |v, r| vec![v[0].multilabel_margin_loss(&v[1], r.reduction())]),
    ("mm", 2, |v, _| vec![v[0].mm(&v[1])]),
    ("bmm", 2, |v, _| vec![v[0].bmm(&v[1])]),
    ("mv", 2, |v, _| vec![v[0].mv(&v[1])]),
    ("dot", 2, |v, _| vec![v[0].dot(&v[1])]),
    ("addmm", 3, |v, _| vec![v[0].addmm(&v[1], &v[2])]),
    ("baddbmm", 3, |v, _| vec![v[0].baddbmm(&v[1], &v[2])]),
    ("addbmm", 3, |v, _| vec![v[0].addbmm(&v[1], &v[2])]),
    ("matmul", 2, |v, _| vec![v[0].matmul(&v[1])]),
    ("matrix_exp", 1, |v, _| vec![v[0].matrix_exp()]),
    ("max_windows", 1, |v, r| {
        let n = r.below(4);
        let window = |r: &mut Random| Window { start: r.size(), end: r.size(), step: r.size() };
        let windows = (0..n).map(|_| (0..r.below(3)).map(|_| window(r)).collect()).collect();
        v[0].max_windows(windows).to_vec()
    }),
    ("max_drawn_windows", 2, |v, r| v[0].max_drawn_windows(r.sizes(), r.sizes(), &v[1]).to_vec()),
    ("mse_loss", 3, |v, r| {
        vec![
            v[0].mse_loss(&v[1], r.reduction()),
            v[0].l1_loss(&v[1], r.reduction()),
            v[0].huber_loss(&v[1], &v[2], r.reduction()),
            v[0].smooth_l1_loss(&v[1], &v[2], r.reduction()),
        ]
    }),
    ("noise", 3, |v, _| vec![v[0].noise(&v[1], &v[2], 0)]),
    ("normalize", 2, |v, r| {
        vec![v[0].normalize(&r.axes(), &v[1]).y, v[0].rms_normalize(&r.axes(), &v[1])]
    }),
    ("scale_shift", 3, |v, r| vec![v[0].scale_shift(optional(&v[1], r), optional(&v[2], r))]),
    ("one_hot", 1, |v, r| {
        vec![v[0].one_hot(r.size(), r.size(), r.flag().then_some(1), Dtype::F32)]
    }),
    ("pad", 2, |v, r| {
        let mode = r.one_of(&[PadMode::Reflect, PadMode::Replicate, PadMode::Circular]);
        vec![v[0].pad(&padding(r), mode), v[0].constant_pad(&padding(r), &v[1])]
    }),
    ("permute", 1, |v, r| {
        vec![v[0].permute(&r.axes()), v[0].transpose(r.axis(), r.axis()), v[0].t(), v[0].mt()]
    }),
    ("place", 2, |v, r| {
        let how = r.one_of(&[Places::Added, Places::Assigned]);
        vec![v[0].place(&v[1], &r.sizes(), how), v[0].pick(&v[1], r.size())]
    }),
    ("max_pool", 1, |v, r| v[0].max_pool(&pooling(r)).to_vec()),
    ("avg_pool", 1, |v, r| vec![v[0].avg_pool(&pooling(r), r.flag(), r.flag().then(|| r.axis()))]),
    ("lp_pool", 1, |v, r| vec![v[0].lp_pool(r.number(), &pooling(r))]),
    ("adaptive_pool", 1, |v, r| {
        let n = r.below(4);
        let sizes: Vec<_> = (0..n).map(|_| r.flag().then(|| r.size())).collect();
        let [max, places] = v[0].adaptive_max_pool(&sizes);
        vec![v[0].adaptive_avg_pool(&sizes), max, places]
    }),
    ("fractional_max_pool", 2, |v, r| {
        let n = r.one_of(&[2, 3, 2, 1]);
        v[0].fractional_max_pool(&r.sizes_of(n), &r.sizes_of(n), optional(&v[1], r)).to_vec()
    }),
    ("max_unpool", 2, |v, r| {
        let size = r.flag().then(|| r.sizes());
        vec![v[0].max_unpool(&v[1], &pooling(r), size.as_deref())]
    }),
    ("prelu", 2, |v, _| vec![v[0].prelu(&v[1])]),
    ("lstm", 5, |v, r| {
        let walked = v[0].lstm(&v[1], optional(&v[2], r), [&v[3], &v[4]], r.size(), r.flag());
        vec![walked.h, walked.memory]
    }),
    ("gru", 4, |v, r| {
        let walked = v[0].gru(&v[1], optional(&v[2], r), &v[3], r.size(), r.flag());
        vec![walked.h, walked.memory]
    }),
    ("reduce", 1, |v, r| {
        let (axes, keepdim) = (r.axes(), r.flag());
        vec![
            v[0].sum(&axes, keepdim),
            v[0].mean(&axes, keepdim),
            v[0].amax(&axes, keepdim),
            v[0].var(&axes, r.number(), keepdim),
            v[0].logsumexp(&axes, keepdim),
            v[0].sum_to(&r.sizes().into()),
        ]
    }),
    ("reshape", 1, |v, r| vec![v[0].reshape(r.sizes()), v[0].flatten(r.axis(), r.axis())]),
    ("rows", 1, |v, r| {
        vec![v[0].select_rows(&r.sizes()), v[0].put_rows(&r.sizes(), r.size(), r.number())]
    }),
    ("packed", 1, |v, r| {
        let packed = PackedSequence {
            batch_first: r.flag(),
            enforce_sorted: r.flag(),
            ..PackedSequence::new(v[0].clone(), r.sizes())
        };
        let mut all = packed.unpack_sequence();
        all.push(packed.pad_packed_sequence(r.flag(), r.number(), r.flag().then(|| r.size())));
        all.extend(v[0].unpad_sequence(&r.sizes(), r.flag()));
        if let Some(steps) = packed.steps() {
            all.push(steps.packed(r.flag()).data);
        }
        all
    }),
    ("pad_sequence", 3, |v, r| {
        let side = r.one_of(&[PaddingSide::Left, PaddingSide::Right]);
        let n = r.below(4);
        let packed = v[0].trace().pack_sequence(&v[..n], r.flag());
        vec![v[0].trace().pad_sequence(&v[..n], r.flag(), r.number(), side), packed.data]
    }),
    ("shuffle", 1, |v, r| {
        vec![
            v[0].pixel_shuffle(r.size()),
            v[0].pixel_unshuffle(r.size()),
            v[0].channel_shuffle(r.size()),
        ]
    }),
    ("slice", 1, |v, r| vec![v[0].slice(r.axis(), r.size()..r.size())]),
    ("softmax", 1, |v, r| {
        let axis = r.axis();
        vec![v[0].softmax(axis), v[0].safe_softmax(axis), v[0].log_softmax(axis)]
    }),
    ("solve", 2, |v, _| vec![v[0].solve(&v[1]), v[0].xlogy(&v[1])]),
    ("split", 1, |v, r| {
        let mut all = v[0].split(r.axis(), &r.sizes());
        all.extend(v[0].chunk::<2>(r.axis()));
        all
    }),
    ("statistics", 1, |v, r| {
        let axis = r.flag().then(|| r.axis());
        vec![
            v[0].prod(axis, r.flag()),
            v[0].cumsum(r.axis()),
            v[0].norm(r.number()),
            v[0].pow(r.number()),
        ]
    }),
    ("tril", 1, |v, r| vec![v[0].tril(r.axis())]),
    ("rand", 1, |v, r| vec![v[0].trace().rand(r.ty().dtype, r.sizes())]),
];
