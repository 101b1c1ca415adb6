import assert from 'node:assert/strict'
import fc from 'fast-check'
import { checkPath, checkPaths } from '../../../src/model/index.ts'

const refused: Array<[string, string, RegExp]> = [
  ['an empty path', '', /empty/],
  ['a parent', '../etc/passwd', /\.\./],
  ['a parent inside', 'a/../b', /\.\./],
  ['a parent at the end', 'a/..', /\.\./],
  ['a dot', './a', /holds \./],
  ['an absolute path', '/etc/passwd', /absolute/],
  ['a double slash', 'a//b', /empty part/],
  ['a slash at the end', 'a/', /empty part/],
  ['a backslash', 'a\\b', /backslash/],
  ['a NUL', 'a\0b', /NUL.*/],
  ['a space', 'a b', /character " "/],
  ['a colon', 'C:', /character ":"/],
  ['a line break', 'a\n', /character "\\u000a"/],
  ['an escape sequence', 'a\u001b[2J', /"a\\u001b\[2J"/],
  ['a letter beyond ASCII', 'modèle.bin', /character "è".*rename/],
  ['a character beyond the first plane', 'a😀', /character "😀"/],
  ['a mark that reverses text', 'a\u202eb', /"\\u202e"/],
  ['17 levels', Array(17).fill('a').join('/'), /17 levels/],
  ['a name of 256', 'a'.repeat(256), /256 characters/],
  ['a path of 1025', Array(5).fill('a'.repeat(205)).join('/').slice(0, 1025), /characters/]
]

describe('model: paths', () => {
  for (const [what, path, message] of refused) {
    it(`refuse ${what}`, () => {
      assert.throws(() => { checkPath(path) }, { name: 'InvalidPathError', message })
      assert.throws(() => { checkPaths(['ok', path]) }, { name: 'InvalidPathError' })
    })
  }

  it('take what models are made of', () => {
    checkPaths([
      'config.json', 'model-00001-of-00004.safetensors', 'original/params.json', '.gitattributes', 'a..b', '...', 'A-Z_0+9@x=y', '1_Pooling/config.json',
      Array(16).fill('a').join('/'), 'b'.repeat(255)
    ])
  })

  it('refuse duplicates, also by case, and files that are directories of others, in any order', () => {
    for (const paths of [['a', 'a'], ['Config.json', 'config.json'], ['a/B', 'A/b'], ['a', 'a/b'], ['a/b/c', 'A/B'], ['a/b', 'a/b/c/d/e']]) {
      assert.throws(() => { checkPaths(paths) }, { name: 'InvalidPathError' }, paths.join(' '))
      assert.throws(() => { checkPaths(paths.toReversed()) }, { name: 'InvalidPathError' }, paths.join(' '))
    }
    checkPaths(['a', 'ab/c', 'ab/d', 'abc', 'AB/e'])
  })

  it('that pass stay below the directory', () => {
    fc.assert(fc.property(fc.string({ unit: fc.constantFrom('a', 'B', '.', '/', '\\', '\0', '-', 'é'), maxLength: 12 }), path => {
      try { checkPath(path) } catch (error) {
        assert.equal((error as Error).name, 'InvalidPathError')
        return
      }
      assert.equal(new URL(path, 'http://host/root/').pathname, `/root/${path}`)
    }), { numRuns: 2000 })
  })

  it('are refused together just when one is another, or a directory of it, whatever their case', () => {
    const name = fc.string({ unit: fc.constantFrom('a', 'A', 'b', '-', '.x', '_'), minLength: 1, maxLength: 3 }).filter(text => text !== '.')
    const path = fc.array(name, { minLength: 1, maxLength: 3 }).map(names => names.join('/'))
    let refusals = 0
    fc.assert(fc.property(fc.array(path, { maxLength: 12 }), paths => {
      const folded = paths.map(path => path.toLowerCase())
      const clashes = folded.some((one, at) => folded.some((other, otherAt) => at !== otherAt && (other === one || other.startsWith(`${one}/`))))
      if (clashes) refusals++
      if (clashes) assert.throws(() => { checkPaths(paths) }, { name: 'InvalidPathError', message: /twice|only in the case|also a directory/ })
      else checkPaths(paths)
    }), { numRuns: 3000 })
    assert.ok(refusals > 100)
  })

  it('are refused with the paths that were given', () => {
    assert.throws(() => { checkPaths(['x', 'D/Weights', 'y', 'd/weights']) }, { message: /"D\/Weights" and "d\/weights" differ only in the case/ })
    assert.throws(() => { checkPaths(['d/e/f', 'D-x', 'D', 'd.y']) }, { message: /"D" is a file, and also a directory of "d\/e\/f"/ })
    assert.throws(() => { checkPaths(['b', 'a', 'b']) }, { message: /"b" occurs twice/ })
  })

  it('are checked in time that grows with their number only', () => {
    const deep = Array.from({ length: 10_000 }, (_, i) => `${'d/'.repeat(14)}f${i}`)
    const started = performance.now()
    checkPaths(deep)
    assert.ok(performance.now() - started < 2000)
  })
})
