"""What benchmarks.select found."""


def report(runs):
    return str(len(runs))
