"""Many strikes of one scenario: list its points, merge equal ones, strike, sum up."""
