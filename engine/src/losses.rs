//! `torch.nn`'s losses, and what losses of a user's own are written with.

#[doc(inline)]
pub use crate::components::losses::{
    AdaptiveLogSoftmaxWithLoss, BCELoss, BCEWithLogitsLoss, CTCLoss, CosineEmbeddingLoss,
    CrossEntropyLoss, GaussianNLLLoss, HingeEmbeddingLoss, HuberLoss, KLDivLoss, KLDivReduction,
    L1Loss, LinearCrossEntropyLoss, Loss, LossCall, MSELoss, MarginRankingLoss,
    MultiLabelMarginLoss, MultiLabelSoftMarginLoss, MultiMarginLoss, NLLLoss, NLLLoss2d,
    PoissonNLLLoss, Reduction, SmoothL1Loss, SoftMarginLoss, TripletMarginLoss,
    TripletMarginWithDistanceLoss,
};
#[doc(inline)]
pub use crate::kernels::ops::loss::linear_cross_entropy::LinearCrossEntropy;
