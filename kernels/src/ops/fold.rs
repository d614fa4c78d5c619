//! Blocks of images as columns, and back: `unfold`, `fold`. Each is the other's gradient.
//!
//! Source: `torch.nn.functional.unfold` and `fold`.

use super::resample::{Along, Taps};
use crate::ir::shape::{check_ints, signed};
use crate::ir::trace::Var;

/// How blocks move over height and width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Blocks {
    /// Numbers of a block.
    pub kernel_size: [usize; 2],
    /// From one number of a block to the next.
    pub dilation: [usize; 2],
    /// Zeros that are thought before and behind.
    pub padding: [usize; 2],
    /// From one block to the next.
    pub stride: [usize; 2],
}

impl Blocks {
    fn check(&self) -> Result<(), String> {
        let settings = [
            ("kernel size", "kernel", self.kernel_size),
            ("dilation", "dilation", self.dilation),
            ("stride", "stride", self.stride),
        ];
        for (name, short, [height, width]) in settings {
            if height == 0 || width == 0 {
                return Err(format!(
                    "{name} should be greater than zero, but got {short}_height: {height} {short}_width: \
                     {width}"
                ));
            }
        }
        check_ints([self.kernel_size, self.dilation, self.padding, self.stride].iter().flatten())
    }

    /// Counts the blocks along each axis; torch's rounding, so they may be too few by any number.
    fn counts(&self, sizes: [usize; 2]) -> [isize; 2] {
        [0, 1].map(|i| {
            let span = self.dilation[i] * (self.kernel_size[i] - 1) + 1;
            let room = signed(sizes[i].saturating_add(2 * self.padding[i])) - signed(span);
            room.div_euclid(signed(self.stride[i])) + 1
        })
    }

    /// Gives the taps that list, for each number of a block, that number of all blocks.
    fn taps(&self, axis: usize, size: usize, count: usize) -> Taps {
        let source = |k: usize, i: usize| {
            let at = i * self.stride[axis] + k * self.dilation[axis];
            at.checked_sub(self.padding[axis]).filter(|&at| at < size)
        };
        let kernel = self.kernel_size[axis];
        Taps::copies(size, (0..kernel).flat_map(|k| (0..count).map(move |i| source(k, i))))
    }

    fn settings(&self) -> String {
        let pair = |[a, b]: [usize; 2]| format!("({a}, {b})");
        format!(
            "kernel_size={}, dilation={}, padding={}",
            pair(self.kernel_size),
            pair(self.dilation),
            pair(self.padding)
        )
    }
}

impl Var {
    /// Lists blocks of an image as columns.
    ///
    /// # Shape
    ///
    /// `self` is `[batch, channels, height, width]`, the result `[batch, channels · numbers of a block, blocks]`;
    /// both may lack the batch.
    ///
    /// Source: `torch.nn.functional.unfold`.
    #[must_use]
    pub fn unfold(&self, blocks: &Blocks) -> Var {
        if self.id().is_none() {
            return self.clone();
        }
        let shape = self.shape();
        if let Err(message) = blocks.check() {
            return self.trace().fail(message);
        }
        let fits = (3..=4).contains(&shape.rank());
        if !fits || shape[shape.rank() - 3..].contains(&0) {
            return self.trace().fail(format!(
                "Expected 3D or 4D (batch mode) tensor with possibly 0 batch size and other non-zero \
                 dimensions for input, but got: {shape}"
            ));
        }
        if shape.rank() == 3 {
            return self.unsqueeze_batch().unfold(blocks).squeeze_batch();
        }
        let [n, c, h, w] = [shape[0], shape[1], shape[2], shape[3]];
        let [rows, columns] = blocks.counts([h, w]);
        if rows < 1 || columns < 1 {
            return self.trace().fail(format!(
                "Given input with spatial size ({h}, {w}), {}, calculated shape of the array of sliding \
                 blocks as ({rows}, {columns}), but its components must be at least one.",
                blocks.settings()
            ));
        }
        let (rows, columns) = (rows.unsigned_abs(), columns.unsigned_abs());
        let [kh, kw] = blocks.kernel_size;
        if let Err(message) =
            self.has_room_for(2, &[kh.saturating_mul(rows), kw.saturating_mul(columns)])
        {
            return self.trace().fail(message);
        }
        let along = [(2, h, rows), (3, w, columns)];
        let listed = self.resample(
            along.map(|(axis, size, count)| Along::new(axis, blocks.taps(axis - 2, size, count))),
        );
        let divided = listed.reshape([n, c, kh, rows, kw, columns]);
        divided.permute(&[0, 1, 2, 4, 3, 5]).reshape([n, c * kh * kw, rows * columns])
    }

    /// Adds up blocks that are listed as columns to an image.
    ///
    /// # Shape
    ///
    /// `self` is `[batch, channels · numbers of a block, blocks]`, the result
    /// `[batch, channels, output_size[0], output_size[1]]`; both may lack the batch.
    ///
    /// Source: `torch.nn.functional.fold`.
    #[must_use]
    pub fn fold(&self, output_size: [usize; 2], blocks: &Blocks) -> Var {
        if self.id().is_none() {
            return self.clone();
        }
        let shape = self.shape();
        if let Err(message) = blocks.check() {
            return self.trace().fail(message);
        }
        let fits = (2..=3).contains(&shape.rank());
        if !fits || shape[shape.rank() - 2..].contains(&0) {
            return self.trace().fail(format!(
                "Expected 2D or 3D (batch mode) tensor for input with possibly 0 batch size and non-zero \
                 dimensions for input, but got: {shape}"
            ));
        }
        if shape.rank() == 2 {
            return self.unsqueeze_batch().fold(output_size, blocks).squeeze_batch();
        }
        let [n, channels, given] = [shape[0], shape[1], shape[2]];
        let [kh, kw] = blocks.kernel_size;
        if !channels.is_multiple_of(kh * kw) {
            return self.trace().fail(format!(
                "Expected size of input's dimension 1 to be divisible by the product of kernel_size, but \
                 got input.size(1)={channels} and kernel_size=({kh}, {kw})."
            ));
        }
        let [h, w] = output_size;
        let [rows, columns] = blocks.counts(output_size);
        if rows < 1 || columns < 1 || rows.saturating_mul(columns) != signed(given) {
            let [dy, dx] = blocks.stride;
            return self.trace().fail(format!(
                "Given output_size=({h}, {w}), {}, stride=({dy}, {dx}), expected size of input's dimension \
                 2 to match the calculated number of sliding blocks {rows} * {columns} = {}, but got \
                 input.size(2)={given}.",
                blocks.settings(),
                rows.saturating_mul(columns)
            ));
        }
        if let Err(message) = self.has_room_for(2, &output_size) {
            return self.trace().fail(message);
        }
        let (rows, columns) = (rows.unsigned_abs(), columns.unsigned_abs());
        let c = channels / (kh * kw);
        let divided = self.reshape([n, c, kh, kw, rows, columns]);
        let listed = divided.permute(&[0, 1, 2, 4, 3, 5]);
        let listed = listed.reshape([n, c, kh * rows, kw * columns]);
        let along = [(2, h, rows), (3, w, columns)];
        listed.resample(along.map(|(axis, size, count)| {
            Along::new(axis, blocks.taps(axis - 2, size, count).transposed())
        }))
    }
}
