import assert from 'node:assert/strict'
import { duration, fields, likelihood, percent, printable, rate, size, table } from '../../../src/cli/format.ts'

describe('cli: format', () => {
  it('writes sizes in binary units and rates in sizes a second', () => {
    assert.deepEqual([0, 1023, 1536, 2 ** 30].map(size), ['0 B', '1023 B', '1.5 KiB', '1 GiB'])
    assert.deepEqual([0, 2 ** 20].map(rate), ['-', '1 MiB/s'])
  })

  it('never says 100 % before it is', () => {
    assert.deepEqual([percent(0, 10), percent(9_999_999, 10_000_000), percent(10, 10), percent(0, 0), percent(11, 10)], ['0 %', '99 %', '100 %', '100 %', '100 %'])
  })

  it('gives a probability its nines, and never says 100 %', () => {
    assert.deepEqual([0, 0.5, 0.9, 0.999, 0.99985, 0.9999997].map(likelihood), ['0 %', '50 %', '90 %', '99.9 %', '99.985 %', '99.99997 %'])
    for (const certain of [1, 1 - 2 ** -53]) assert.equal(likelihood(certain), 'more than 99.9999999999 %')
    for (let exponent = 1; exponent <= 11; exponent++) assert.match(likelihood(1 - 3 * 10 ** -(exponent + 1)), /^9\d(\.\d+)? %$/)
  })

  it('writes durations in two units', () => {
    assert.deepEqual([0.04, 9.94, 9.96, 59.6, 61, 3_600, 7_500, 90_061, Infinity].map(duration), ['0.0 s', '9.9 s', '10 s', '1 min', '1 min 1 s', '1 h', '2 h 5 min', '1 d 1 h', '-'])
  })

  it('aligns columns, numbers to the right, without borders or colours', () => {
    assert.equal(table(['NAME', '>SIZE'], [['a', '1 B'], ['long name', '1023 B']]), 'NAME         SIZE\na             1 B\nlong name  1023 B')
    assert.equal(fields([['a', '1'], ['long', '2']]), 'a     1\nlong  2')
  })

  it('shows control characters instead of sending them to the terminal', () => {
    assert.equal(printable('a\u001b[31mb\u0007\u009b'), 'a\\x1b[31mb\\x07\\x9b')
    assert.equal(printable('ä\n\t漢'), 'ä\n\t漢')
  })
})
