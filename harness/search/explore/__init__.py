"""Many strikes of one scenario: list its points, leave out what is equal, strike, sum up."""
