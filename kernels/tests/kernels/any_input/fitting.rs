//! Shapes that functions take where drawn ones hardly fit, or are too short for a sum of more than one block.

use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::shape::Type;

use super::functions::Function;
use super::random::Random;

/// Shapes of a function's arguments: sizes, `i` where they are whole numbers, `-` for a single number.
const FITTING: &[(&str, &str)] = &[
    ("affine_grid", "2,2,3"),
    ("attention", "2,3,37 2,5,37 2,5,37 3,5"),
    ("attention", "2,4,8 2,300,8 2,300,8 4,300"),
    ("bilinear", "3,37 3,8 4,37,8 4"),
    ("conv_tbc", "9,2,37 3,37,5 5"),
    ("convolution", "2,4,41 6,4,3 6"),
    ("convolution", "2,4,9,9 6,2,3,3 6"),
    ("convolution", "1,32,7,7 3,32,3,3 3"),
    ("conv_transpose", "2,4,9 4,6,3 6"),
    ("conv_transpose", "2,4,5,5 4,3,3,3 6"),
    ("conv_transpose", "1,32,7,7 32,3,3,3 3"),
    ("cross_entropy", "5,37 5i 37 -"),
    ("cross_entropy", "2,37,6 2,6i 37 -"),
    ("cross_entropy_of_probabilities", "5,37 5,37 37 -"),
    ("linear_cross_entropy", "5,300 7,300 5i 7"),
    ("nll_loss", "5,37 5i 37"),
    ("ctc_loss", "9,2,5 2,2i 2i 2i"),
    ("cdist", "3,300 5,300"),
    ("cosine_similarity", "3,300 3,300 -"),
    ("cosine_embedding_loss", "9,37 9,37 9 -"),
    ("einsum", "3,300 300,7"),
    ("embedding", "3,5i 7,37"),
    ("embedding_bag", "4,6i 7,37 - 4,6"),
    ("embedding_bag", "9i 7,37 3i 9"),
    ("unfold", "2,3,9,9"),
    ("vector_norm", "3,300"),
    ("batch_norm_gather_stats_with_counts", "4,37 4,37 4i -"),
    ("grid_sample", "2,3,9,9 2,4,5,2"),
    ("linear", "3,300 7,300 7"),
    ("multi_margin_loss", "5,37 5i - 37"),
    ("mm", "3,300 300,7"),
    ("bmm", "2,3,300 2,300,5"),
    ("mv", "5,300 300"),
    ("dot", "700 700"),
    ("addmm", "3,7 3,300 300,7"),
    ("baddbmm", "2,3,5 2,3,300 2,300,5"),
    ("addbmm", "3,5 2,3,300 2,300,5"),
    ("matmul", "3,300 300,7"),
    ("max_drawn_windows", "2,3,9,9 2,3,2"),
    ("normalize", "3,700 -"),
    ("max_pool", "2,3,9,9"),
    ("avg_pool", "2,3,9,9"),
    ("lp_pool", "2,3,9,9"),
    ("lstm", "6,148 148,37 148 2,37 2,37"),
    ("gru", "6,111 111,37 111 2,37"),
    ("reduce", "3,700"),
    ("reduce", "700,3"),
    ("softmax", "3,700"),
    ("statistics", "3,700"),
];

/// Gives types that may fit a function: every other time those above, if there are some.
pub(crate) fn types(function: &Function, random: &mut Random) -> Vec<Type> {
    let known: Vec<_> = FITTING.iter().filter(|(name, _)| *name == function.0).collect();
    if known.is_empty() || random.flag() {
        return random.types(function.1);
    }
    let float = random.one_of(&[Dtype::F32, Dtype::F32, Dtype::F64, Dtype::F16, Dtype::BF16]);
    random.one_of(&known).1.split(' ').map(|of| ty(of, float)).collect()
}

fn ty(text: &str, float: Dtype) -> Type {
    let sizes = text.trim_end_matches('i');
    let dtype = if sizes == text { float } else { Dtype::I64 };
    let sizes = sizes.split(',').filter(|&size| size != "-");
    Type::new(dtype, sizes.map(|size| size.parse().expect("a size")).collect::<Vec<_>>())
}
