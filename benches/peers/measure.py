"""Taking times as `benches/population/measure.rs` does."""

import statistics
import time

WARM_UPS = 3


def measure(step, seconds, least, most):
    """Seconds of a step: median and best of so many steps, after some that do not count."""
    for _ in range(WARM_UPS):
        step()
    times, begin = [], time.perf_counter()
    while len(times) < least or (len(times) < most and time.perf_counter() - begin < seconds):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return statistics.median(times), min(times)
