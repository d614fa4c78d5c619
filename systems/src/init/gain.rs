//! How far apart first numbers should lie: fans and gains.

use std::str::FromStr;

use neurarch_components::module::Init;
use neurarch_kernels::ir::shape::Shape;

use crate::errors::NoFans;

/// What follows a layer, as far as its initializer cares.
///
/// Source: the names that `torch.nn.init.calculate_gain` takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Nonlinearity {
    /// No function, or a convolution.
    Linear,
    /// [`Sigmoid`](neurarch_components::layers::Sigmoid).
    Sigmoid,
    /// [`Tanh`](neurarch_components::layers::Tanh).
    Tanh,
    /// [`ReLU`](neurarch_components::layers::ReLU).
    ReLU,
    /// [`LeakyReLU`](neurarch_components::layers::LeakyReLU) with that slope; torch's default is 0.01.
    LeakyReLU(f64),
    /// Scaled exponential linear units.
    SELU,
}

/// A name is not among those that torch knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownName {
    /// It should name a nonlinearity.
    #[error("Unsupported nonlinearity {0}")]
    Nonlinearity(String),
    /// It should be a slope; torch's words.
    #[error("negative_slope {0} not a valid number")]
    Slope(String),
    /// It should name a fan.
    #[error("Mode {0} not supported, please use one of ['fan_in', 'fan_out']")]
    FanMode(String),
}

/// Reads torch's name; `leaky_relu` has the slope 0.01.
impl FromStr for Nonlinearity {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        Ok(match name {
            "linear" | "conv1d" | "conv2d" | "conv3d" | "conv_transpose1d" | "conv_transpose2d"
            | "conv_transpose3d" => Nonlinearity::Linear,
            "sigmoid" => Nonlinearity::Sigmoid,
            "tanh" => Nonlinearity::Tanh,
            "relu" => Nonlinearity::ReLU,
            "leaky_relu" => Nonlinearity::LeakyReLU(0.01),
            "selu" => Nonlinearity::SELU,
            other => return Err(UnknownName::Nonlinearity(other.to_owned())),
        })
    }
}

impl Nonlinearity {
    /// Reads torch's name and, for `leaky_relu`, the slope in words; the others ignore it.
    ///
    /// # Errors
    ///
    /// If there is no such name, or the slope is no number.
    ///
    /// # Example
    ///
    /// ```
    /// # use neurarch_systems::init::Nonlinearity;
    /// assert_eq!(Nonlinearity::with_param("leaky_relu", "0.2")?, Nonlinearity::LeakyReLU(0.2));
    /// let error = Nonlinearity::with_param("leaky_relu", "steep").unwrap_err();
    /// assert_eq!(error.to_string(), "negative_slope steep not a valid number");
    /// # Ok::<(), neurarch_systems::init::UnknownName>(())
    /// ```
    ///
    /// Source: `param` of `torch.nn.init.calculate_gain`.
    pub fn with_param(name: &str, param: &str) -> Result<Self, UnknownName> {
        match name.parse()? {
            Nonlinearity::LeakyReLU(_) => {
                let slope = param.parse().map_err(|_| UnknownName::Slope(param.to_owned()))?;
                Ok(Nonlinearity::LeakyReLU(slope))
            }
            other => Ok(other),
        }
    }
}

/// Returns the factor by which first numbers make up for what a nonlinearity takes away.
///
/// Source: `torch.nn.init.calculate_gain`.
pub fn calculate_gain(nonlinearity: Nonlinearity) -> f64 {
    match nonlinearity {
        Nonlinearity::Linear | Nonlinearity::Sigmoid => 1.0,
        Nonlinearity::Tanh => 5.0 / 3.0,
        Nonlinearity::ReLU => 2f64.sqrt(),
        Nonlinearity::LeakyReLU(slope) => (2.0 / (1.0 + slope * slope)).sqrt(),
        Nonlinearity::SELU => 0.75,
    }
}

/// Which fan [`kaiming_uniform`] and [`kaiming_normal`] keep the variance by.
///
/// Source: `mode` of `torch.nn.init.kaiming_uniform_`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FanMode {
    /// Inputs: keeps the variance in the forward pass.
    #[default]
    FanIn,
    /// Outputs: keeps it in the backward pass.
    FanOut,
    /// The mean of both. torch has it nowhere; it is Glorot and Bengio's compromise with the gain of a nonlinearity.
    FanAvg,
}

/// Reads `fan_in` and `fan_out`, torch's names, in any case; torch has no name for [`FanMode::FanAvg`].
impl FromStr for FanMode {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        match name.to_lowercase().as_str() {
            "fan_in" => Ok(FanMode::FanIn),
            "fan_out" => Ok(FanMode::FanOut),
            other => Err(UnknownName::FanMode(other.to_owned())),
        }
    }
}

/// Counts the inputs and the outputs that each element of a weight `[out, in, ..]` meets.
///
/// # Errors
///
/// If the shape has fewer than two axes.
///
/// Source: `torch.nn.init._calculate_fan_in_and_fan_out`.
pub fn calculate_fan_in_and_fan_out(shape: &Shape) -> Result<(usize, usize), NoFans> {
    let Some((&[fan_out, fan_in], kernel)) = shape.split_first_chunk() else {
        return Err(NoFans(shape.clone()));
    };
    let field: usize = kernel.iter().product();
    Ok((fan_in * field, fan_out * field))
}

/// Uniform with standard deviation `gain · √(2 / (fan_in + fan_out))`.
///
/// # Errors
///
/// If the shape has fewer than two axes.
///
/// Source: `torch.nn.init.xavier_uniform_`.
pub fn xavier_uniform(shape: &Shape, gain: f64) -> Result<Init, NoFans> {
    xavier_std(shape, gain).map(uniform)
}

/// Normal with standard deviation `gain · √(2 / (fan_in + fan_out))`.
///
/// # Errors
///
/// If the shape has fewer than two axes.
///
/// Source: `torch.nn.init.xavier_normal_`.
pub fn xavier_normal(shape: &Shape, gain: f64) -> Result<Init, NoFans> {
    xavier_std(shape, gain).map(|std| Init::Normal { mean: 0.0, std })
}

/// Uniform with standard deviation `gain / √fan`.
///
/// # Errors
///
/// If the shape has fewer than two axes.
///
/// Source: `torch.nn.init.kaiming_uniform_`.
pub fn kaiming_uniform(
    shape: &Shape,
    mode: FanMode,
    nonlinearity: Nonlinearity,
) -> Result<Init, NoFans> {
    kaiming_std(shape, mode, nonlinearity).map(uniform)
}

/// Normal with standard deviation `gain / √fan`.
///
/// # Errors
///
/// If the shape has fewer than two axes.
///
/// Source: `torch.nn.init.kaiming_normal_`.
pub fn kaiming_normal(
    shape: &Shape,
    mode: FanMode,
    nonlinearity: Nonlinearity,
) -> Result<Init, NoFans> {
    kaiming_std(shape, mode, nonlinearity).map(|std| Init::Normal { mean: 0.0, std })
}

fn xavier_std(shape: &Shape, gain: f64) -> Result<f64, NoFans> {
    let (fan_in, fan_out) = calculate_fan_in_and_fan_out(shape)?;
    Ok(gain * (2.0 / (fan_in + fan_out).max(1) as f64).sqrt())
}

fn kaiming_std(shape: &Shape, mode: FanMode, nonlinearity: Nonlinearity) -> Result<f64, NoFans> {
    let (fan_in, fan_out) = calculate_fan_in_and_fan_out(shape)?;
    let fan = match mode {
        FanMode::FanIn => fan_in as f64,
        FanMode::FanOut => fan_out as f64,
        FanMode::FanAvg => (fan_in as f64 + fan_out as f64) / 2.0,
    };
    Ok(calculate_gain(nonlinearity) / fan.max(1.0).sqrt())
}

fn uniform(std: f64) -> Init {
    let high = 3f64.sqrt() * std;
    Init::Uniform { low: -high, high }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fans_are_torchs() {
        let fans = |sizes: &[usize]| calculate_fan_in_and_fan_out(&Shape::from(sizes));
        assert_eq!(fans(&[16, 4]), Ok((4, 16)));
        assert_eq!(fans(&[8, 3, 5, 5]), Ok((75, 200)));
        assert_eq!(fans(&[16]), Err(NoFans(Shape::from([16]))));
    }

    #[test]
    fn a_linear_layer_starts_within_one_over_the_root_of_its_inputs() {
        let nonlinearity = Nonlinearity::LeakyReLU(5f64.sqrt());
        let init = kaiming_uniform(&Shape::from([16, 4]), FanMode::FanIn, nonlinearity);
        let Ok(Init::Uniform { low, high }) = init else { panic!("a weight has fans") };
        assert!((high - 0.5).abs() < 1e-15 && low == -high);
    }
}
