"""Matrices and vectors as lists of entries, row by row."""

from collections.abc import Callable
from typing import Any, NamedTuple

from igrpo_jax.rewards.reading.nodes import ReadError


class Grid(NamedTuple):
    """A matrix; a vector is one column."""

    entries: list[Any]
    rows: int
    columns: int

    def each(self, function: Callable[[Any], Any]) -> "Grid":
        """The function of every entry."""
        return Grid([function(entry) for entry in self.entries], self.rows, self.columns)

    def plus(self, other: "Grid", add: Callable[[Any, Any], Any]) -> "Grid":
        """The sum of two of one shape."""
        if (self.rows, self.columns) != (other.rows, other.columns):
            raise ReadError("a sum of matrices of different shapes")
        return Grid([add(a, b) for a, b in zip(self.entries, other.entries, strict=True)], self.rows, self.columns)

    def times(self, other: "Grid", multiply: Callable[[Any, Any], Any], add: Callable[[Any, Any], Any]) -> "Grid":
        """The matrix product."""
        if self.columns != other.rows:
            raise ReadError("a product of matrices whose shapes do not fit")
        entries = []
        for row in range(self.rows):
            for column in range(other.columns):
                total = None
                for k in range(self.columns):
                    term = multiply(self.entries[row * self.columns + k], other.entries[k * other.columns + column])
                    total = term if total is None else add(total, term)
                entries.append(total)
        return Grid(entries, self.rows, other.columns)

    def transposed(self) -> "Grid":
        """Rows as columns."""
        entries = [
            self.entries[row * self.columns + column] for column in range(self.columns) for row in range(self.rows)
        ]
        return Grid(entries, self.columns, self.rows)

    def minor(self, column: int) -> "Grid":
        """Without the first row and one column."""
        kept = [entry for i, entry in enumerate(self.entries[self.columns :]) if i % self.columns != column]
        return Grid(kept, self.rows - 1, self.columns - 1)


def determinant(grid: Grid, multiply: Callable[[Any, Any], Any], add: Callable[[Any, Any], Any]) -> Any:
    """The determinant by expansion along the first row; of at most six rows."""
    if grid.rows != grid.columns or grid.rows > 6:
        raise ReadError("a determinant of what is not square, or large")
    if grid.rows == 1:
        return grid.entries[0]
    total = None
    for column, entry in enumerate(grid.entries[: grid.columns]):
        term = multiply(entry if column % 2 == 0 else -entry, determinant(grid.minor(column), multiply, add))
        total = term if total is None else add(total, term)
    return total
