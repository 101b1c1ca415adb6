import assert from 'node:assert/strict'
import Table from 'cli-table3'
import fc from 'fast-check'
import { duration, fields, likelihood, percent, printable, rate, size, table, tableLines } from '../../../src/cli/format.ts'

/** The same table by the library, whose time grows with the square of the rows. */
function libraryTable (heads: string[], rows: string[][]): string {
  const border = Object.fromEntries(['top', 'top-mid', 'top-left', 'top-right', 'bottom', 'bottom-mid', 'bottom-left', 'bottom-right', 'left', 'left-mid', 'mid', 'mid-mid', 'right', 'right-mid'].map(place => [place, '']))
  const grid = new Table({
    head: heads.map(head => head.replace(/^>/, '')),
    colAligns: heads.map(head => head.startsWith('>') ? 'right' : 'left'),
    chars: { ...border, middle: '  ' },
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 0, compact: true }
  })
  grid.push(...rows)
  return grid.toString().split('\n').map(line => line.trimEnd()).join('\n')
}

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

  it('makes the tables that cli-table3 makes', () => {
    const cell = fc.array(fc.constantFrom('a', 'Bc', ' ', '9', '\n', '\t', 'é', 'e\u0301', '漢', '😀', '-'), { maxLength: 6 }).map(parts => parts.join(''))
    const column = fc.tuple(fc.constantFrom('', '>'), fc.constantFrom('A', 'NAME', '漢字', '')).map(parts => parts.join(''))
    const tables = fc.integer({ min: 1, max: 4 }).chain(width => fc.tuple(
      fc.array(column, { minLength: width, maxLength: width }),
      fc.array(fc.array(cell, { minLength: width, maxLength: width }), { maxLength: 5 })
    ))
    fc.assert(fc.property(tables, ([heads, rows]) => { assert.equal(table(heads, rows), libraryTable(heads, rows)) }), { numRuns: 500 })
  })

  it('makes a table of very many rows', () => {
    const rows = Array.from({ length: 200_000 }, (_, row) => [`tensor ${row}`, 'F16', String(row)])
    let lines = 0
    let last = ''
    for (const line of tableLines(['TENSOR', 'KIND', '>SIZE'], rows)) {
      lines++
      last = line
    }
    assert.equal(lines, 200_001)
    assert.equal(last, 'tensor 199999  F16   199999')
  })

  it('has a cell that is far too wide stick out, instead of widening the others', () => {
    const wide = 'x'.repeat(1_000_000)
    assert.equal(table(['NAME', '>SIZE'], [[wide, '1'], ['a', '20']]), `NAME  SIZE\n${wide}     1\na       20`)
  })

  it('shows control characters instead of sending them to the terminal', () => {
    assert.equal(printable('a\u001b[31mb\u0007\u009b'), 'a\\x1b[31mb\\x07\\x9b')
    assert.equal(printable('ä\n\t漢'), 'ä\n\t漢')
  })
})
