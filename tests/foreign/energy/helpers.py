"""Features that both notebooks use."""


def heating_degrees(outside, base=17):
    return (base - outside).clip(lower=0)
