//! Losses, distances and tables that neurarch has, and how each is made from its arguments.

use neurarch::prelude::*;

use crate::runner::arguments::Arguments;
use crate::runner::build::layers::{Make, listed, made};
use crate::runner::case::{Checked, Stop};

/// Every one, a line each.
pub const LOSSES: &[(&str, Make)] = &[
    ("L1Loss", |args| made(L1Loss { reduction: reduction(args)? })),
    ("MSELoss", |args| made(MSELoss { reduction: reduction(args)? })),
    ("HuberLoss", |args| {
        made(HuberLoss { reduction: reduction(args)?, delta: args.number("delta", 1.0)? })
    }),
    ("SmoothL1Loss", |args| {
        made(SmoothL1Loss { reduction: reduction(args)?, beta: args.number("beta", 1.0)? })
    }),
    ("CrossEntropyLoss", |args| {
        made(CrossEntropyLoss {
            label_smoothing: args.number("label_smoothing", 0.0)?,
            ignore_index: args.axis("ignore_index", Some(-100))? as i64,
            reduction: reduction(args)?,
            weight: weight(args)?,
        })
    }),
    ("NLLLoss", |args| {
        let ignore_index = args.axis("ignore_index", Some(-100))? as i64;
        made(NLLLoss { weight: weight(args)?, ignore_index, reduction: reduction(args)? })
    }),
    ("NLLLoss2d", |args| {
        let ignore_index = args.axis("ignore_index", Some(-100))? as i64;
        made(NLLLoss2d { weight: weight(args)?, ignore_index, reduction: reduction(args)? })
    }),
    ("BCELoss", |args| {
        made(BCELoss { weight: args.tensor("weight")?, reduction: reduction(args)? })
    }),
    ("BCEWithLogitsLoss", |args| {
        made(BCEWithLogitsLoss {
            weight: args.tensor("weight")?,
            reduction: reduction(args)?,
            pos_weight: args.tensor("pos_weight")?,
        })
    }),
    ("KLDivLoss", |args| {
        let reduction = match args.word("reduction", "mean")?.as_str() {
            "batchmean" => KLDivReduction::BatchMean,
            "none" => KLDivReduction::None,
            "sum" => KLDivReduction::Sum,
            _ => KLDivReduction::Mean,
        };
        made(KLDivLoss { reduction, log_target: args.flag("log_target", false)? })
    }),
    ("SoftMarginLoss", |args| made(SoftMarginLoss { reduction: reduction(args)? })),
    ("HingeEmbeddingLoss", |args| {
        made(HingeEmbeddingLoss {
            margin: args.number("margin", 1.0)?,
            reduction: reduction(args)?,
        })
    }),
    ("CosineEmbeddingLoss", |args| {
        made(CosineEmbeddingLoss {
            margin: args.number("margin", 0.0)?,
            reduction: reduction(args)?,
        })
    }),
    ("MarginRankingLoss", |args| {
        made(MarginRankingLoss { margin: args.number("margin", 0.0)?, reduction: reduction(args)? })
    }),
    ("MultiMarginLoss", |args| {
        made(MultiMarginLoss {
            p: args.axis("p", Some(1))? as u32,
            margin: args.number("margin", 1.0)?,
            weight: weight(args)?,
            reduction: reduction(args)?,
        })
    }),
    ("MultiLabelMarginLoss", |args| made(MultiLabelMarginLoss { reduction: reduction(args)? })),
    ("MultiLabelSoftMarginLoss", |args| {
        made(MultiLabelSoftMarginLoss {
            weight: args.tensor("weight")?,
            reduction: reduction(args)?,
        })
    }),
    ("TripletMarginLoss", |args| {
        made(TripletMarginLoss {
            margin: args.number("margin", 1.0)?,
            p: args.number("p", 2.0)?,
            eps: args.number("eps", 1e-6)?,
            swap: args.flag("swap", false)?,
            reduction: reduction(args)?,
        })
    }),
    ("TripletMarginWithDistanceLoss", |args| {
        if let Some(given) = args.given("distance_function") {
            return Err(Stop::Needs(format!("needs {} with {given}", args.class)));
        }
        made(TripletMarginWithDistanceLoss {
            margin: args.number("margin", 1.0)?,
            swap: args.flag("swap", false)?,
            reduction: reduction(args)?,
            ..TripletMarginWithDistanceLoss::default()
        })
    }),
    ("PoissonNLLLoss", |args| {
        made(PoissonNLLLoss {
            log_input: args.flag("log_input", true)?,
            full: args.flag("full", false)?,
            eps: args.number("eps", 1e-8)?,
            reduction: reduction(args)?,
        })
    }),
    ("GaussianNLLLoss", |args| {
        made(GaussianNLLLoss {
            full: args.flag("full", false)?,
            eps: args.number("eps", 1e-6)?,
            reduction: reduction(args)?,
        })
    }),
    ("CTCLoss", |args| {
        made(CTCLoss {
            blank: args.axis("blank", Some(0))?.unsigned_abs(),
            reduction: reduction(args)?,
            zero_infinity: args.flag("zero_infinity", false)?,
        })
    }),
    ("AdaptiveLogSoftmaxWithLoss", |args| {
        made(AdaptiveLogSoftmaxWithLoss {
            in_features: args.size("in_features")?,
            n_classes: args.size("n_classes")?,
            cutoffs: listed(args, "cutoffs")?,
            div_value: args.number("div_value", 4.0)?,
            head_bias: args.flag("head_bias", false)?,
        })
    }),
    ("CosineSimilarity", |args| {
        made(CosineSimilarity { dim: args.axis("dim", Some(1))?, eps: args.number("eps", 1e-8)? })
    }),
    ("PairwiseDistance", |args| {
        made(PairwiseDistance {
            p: args.number("p", 2.0)?,
            eps: args.number("eps", 1e-6)?,
            keepdim: args.flag("keepdim", false)?,
        })
    }),
    ("Bilinear", |args| {
        made(Bilinear {
            in1_features: args.size("in1_features")?,
            in2_features: args.size("in2_features")?,
            out_features: args.size("out_features")?,
            bias: args.flag("bias", true)?,
        })
    }),
    ("Embedding", |args| {
        made(Embedding {
            padding_idx: padding_idx(args),
            max_norm: args.optional_number("max_norm")?,
            norm_type: args.number("norm_type", 2.0)?,
            scale_grad_by_freq: args.flag("scale_grad_by_freq", false)?,
            ..Embedding::new(args.size("num_embeddings")?, args.size("embedding_dim")?)
        })
    }),
    ("EmbeddingBag", |args| {
        let mode = match args.word("mode", "mean")?.as_str() {
            "sum" => BagMode::Sum,
            "max" => BagMode::Max,
            _ => BagMode::Mean,
        };
        made(EmbeddingBag {
            num_embeddings: args.size("num_embeddings")?,
            embedding_dim: args.size("embedding_dim")?,
            max_norm: args.optional_number("max_norm")?,
            norm_type: args.number("norm_type", 2.0)?,
            scale_grad_by_freq: args.flag("scale_grad_by_freq", false)?,
            mode,
            include_last_offset: args.flag("include_last_offset", false)?,
            padding_idx: padding_idx(args),
        })
    }),
];

fn reduction(args: &mut Arguments<'_>) -> Checked<Reduction> {
    match args.word("reduction", "mean")?.as_str() {
        "mean" => Ok(Reduction::Mean),
        "sum" => Ok(Reduction::Sum),
        "none" => Ok(Reduction::None),
        other => Err(Stop::Needs(format!("needs reduction={other}"))),
    }
}

/// Reads a weight for each class.
fn weight(args: &mut Arguments<'_>) -> Checked<Option<Vec<f64>>> {
    Ok(args.tensor("weight")?.map(|weight| weight.iter().copied().collect()))
}

fn padding_idx(args: &mut Arguments<'_>) -> Option<isize> {
    args.get("padding_idx").and_then(|value| value.as_i64()).map(|index| index as isize)
}
