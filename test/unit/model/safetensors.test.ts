import assert from 'node:assert/strict'
import fc from 'fast-check'
import { MiB, SAFETENSORS_HEADER_BYTES_MAX, seededRandom, shuffle } from '../../../src/base/index.ts'
import { DTYPE_BITS, parseSafetensorsHeader, readSafetensors, type ReadAt, type Tensor } from '../../../src/model/index.ts'

const parse = (header: string | Uint8Array, dataBytes: number): Tensor[] => {
  const bytes = Buffer.from(header)
  return parseSafetensorsHeader(bytes, 8 + bytes.length + dataBytes)
}
const tensor = (dtype: string, shape: unknown, ...range: unknown[]): object => ({ dtype, shape, data_offsets: range })
const reader = (bytes: Uint8Array): ReadAt => async (offset, length) => bytes.subarray(offset, offset + length)
const file = (header: string, dataBytes: number, claimed = BigInt(Buffer.byteLength(header))): Uint8Array => {
  const prefix = Buffer.alloc(8)
  prefix.writeBigUInt64LE(claimed)
  return Buffer.concat([prefix, Buffer.from(header), Buffer.alloc(dataBytes)])
}

describe('model: safetensors header', () => {
  it('gives the tensors by offset, whatever order they stand in', () => {
    const header = JSON.stringify({ b: tensor('F32', [2, 2], 6, 22), __metadata__: { format: 'pt' }, a: tensor('BF16', [3], 0, 6), none: tensor('F32', [0, 5], 22, 22), one: tensor('I64', [], 22, 30) })
    const start = 8 + header.length
    assert.deepEqual(parse(header, 30), [
      { name: 'a', dtype: 'BF16', shape: [3], offset: start, length: 6 },
      { name: 'b', dtype: 'F32', shape: [2, 2], offset: start + 6, length: 16 },
      { name: 'none', dtype: 'F32', shape: [0, 5], offset: start + 22, length: 0 },
      { name: 'one', dtype: 'I64', shape: [], offset: start + 22, length: 8 }
    ])
  })

  it('takes every dtype, padding, escapes and names of any script', () => {
    for (const [dtype, bits] of Object.entries(DTYPE_BITS)) assert.equal(parse(JSON.stringify({ x: tensor(dtype, [8], 0, bits) }), bits)[0]?.length, bits)
    assert.deepEqual(parse('{}', 0), [])
    assert.deepEqual(parse('{}      ', 0), [])
    assert.deepEqual(parse('{"__metadata__":{}}', 0), [])
    const odd = '{ "h\\u00e9 \\"x\\" \\\\" :\n{"data_offsets" : [ 0 , 1 ],\t"shape":[1],"dtype":"\\u0055\\u0038"} , "形":{"dtype":"U8","shape":[],"data_offsets":[1,2]}, "__proto__":{"dtype":"U8","shape":[],"data_offsets":[2,3]}}'
    assert.deepEqual(parse(odd, 3).map(({ name }) => name), ['hé "x" \\', '形', '__proto__'])
  })

  const big = '9007199254740993'
  const lies: Array<[string, string | Uint8Array, number]> = [
    ['a hole', JSON.stringify({ a: tensor('U8', [1], 0, 1), b: tensor('U8', [1], 2, 3) }), 3],
    ['a hole at the start', JSON.stringify({ a: tensor('U8', [1], 1, 2) }), 2],
    ['an overlap', JSON.stringify({ a: tensor('U8', [2], 0, 2), b: tensor('U8', [2], 1, 3) }), 3],
    ['the same range twice', JSON.stringify({ a: tensor('U8', [2], 0, 2), b: tensor('U8', [2], 0, 2) }), 2],
    ['bytes behind the tensors', JSON.stringify({ a: tensor('U8', [2], 0, 2) }), 3],
    ['a tensor beyond the file', JSON.stringify({ a: tensor('U8', [2], 0, 2) }), 1],
    ['data and no tensor', '{}', 1],
    ['a range backwards', JSON.stringify({ a: tensor('U8', [0], 2, 1) }), 1],
    ['a shape that does not fit', JSON.stringify({ a: tensor('F32', [2], 0, 7) }), 7],
    ['an unknown dtype', JSON.stringify({ a: tensor('F128', [1], 0, 16) }), 16],
    ['a dtype off the prototype', JSON.stringify({ a: tensor('constructor', [1], 0, 1) }), 1],
    ['half a byte', JSON.stringify({ a: tensor('F4', [3], 0, 2) }), 2],
    ['a count that overflows', `{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}`, 0],
    ['bits that overflow', `{"a":{"dtype":"F64","shape":[9007199254740991],"data_offsets":[0,8]}}`, 8],
    ['six-bit elements whose bits a double rounds', `{"a":{"dtype":"F6_E2M3","shape":[${2 ** 52 + 1}],"data_offsets":[0,${0.75 * 2 ** 52 + 1}]}}`, 0.75 * 2 ** 52 + 1],
    ['an overflow before a zero', `{"a":{"dtype":"U8","shape":[9007199254740991,2,0],"data_offsets":[0,0]}}`, 0],
    ['a number beyond 2^53', `{"a":{"dtype":"U8","shape":[${big}],"data_offsets":[0,${big}]}}`, 0],
    ['a negative dimension', JSON.stringify({ a: tensor('U8', [-1], 0, 1) }), 1],
    ['a fraction', '{"a":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}}', 1],
    ['an exponent', '{"a":{"dtype":"U8","shape":[1e0],"data_offsets":[0,1]}}', 1],
    ['a leading zero', '{"a":{"dtype":"U8","shape":[01],"data_offsets":[0,1]}}', 1],
    ['text for a number', JSON.stringify({ a: tensor('U8', ['1'], 0, 1) }), 1],
    ['a rank of 33', JSON.stringify({ a: tensor('U8', Array(33).fill(1), 0, 1) }), 1],
    ['three offsets', JSON.stringify({ a: tensor('U8', [1], 0, 1, 2) }), 1],
    ['one offset', JSON.stringify({ a: tensor('U8', [1], 1) }), 1],
    ['a tensor twice', '{"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}', 1],
    ['a tensor twice by escape', '{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"\\u0061":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}', 1],
    ['a key of a tensor twice', '{"a":{"dtype":"U8","dtype":"U8","shape":[],"data_offsets":[0,1]}}', 1],
    ['a key too many', '{"a":{"dtype":"U8","shape":[],"data_offsets":[0,1],"x":[]}}', 1],
    ['a key missing', '{"a":{"dtype":"U8","shape":[]}}', 0],
    ['metadata that is not text', '{"__metadata__":{"a":1}}', 0],
    ['nested metadata', '{"__metadata__":{"a":{}}}', 0],
    ['metadata twice', '{"__metadata__":{},"__metadata__":{}}', 0],
    ['a metadata key twice', '{"__metadata__":{"a":"","a":""}}', 0],
    ['an array', '[]', 0],
    ['nothing', '', 0],
    ['leading space', ' {}', 0],
    ['a trailing comma', '{"__metadata__":{},}', 0],
    ['something behind it', '{}{}', 0],
    ['NULs behind it', '{}\0\0', 0],
    ['an open string', '{"a', 0],
    ['an open escape', '{"a\\', 0],
    ['an open object', '{"__metadata__":{', 0],
    ['a bad escape', '{"\\x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}', 0],
    ['a line break in a name', '{"\n":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}', 0],
    ['bytes that are not UTF-8', Buffer.from('{"\xff":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}', 'latin1'), 1],
    ['deep nesting', `{"a":${'['.repeat(1_000_000)}`, 0]
  ]
  for (const [what, header, dataBytes] of lies) {
    it(`refuses ${what}`, () => { assert.throws(() => parse(header, dataBytes), { name: 'InvalidSafetensorsError' }) })
  }

  it('that lies about its length is refused before it is read', async () => {
    for (const claimed of [3n, 1000n, BigInt(SAFETENSORS_HEADER_BYTES_MAX) + 1n, 2n ** 63n, 2n ** 64n - 1n, 2n ** 53n + 1n]) {
      let read = 0
      const bytes = file('{}', 0, claimed)
      await assert.rejects(readSafetensors(async (offset, length) => { read += length; return await reader(bytes)(offset, length) }, bytes.length), { name: 'InvalidSafetensorsError' })
      assert.ok(read <= 16)
    }
    for (const bytes of [new Uint8Array(0), new Uint8Array(7), new Uint8Array(8)]) {
      await assert.rejects(readSafetensors(reader(bytes), bytes.length), { name: 'InvalidSafetensorsError' })
    }
    assert.deepEqual(await readSafetensors(reader(file('{}', 0)), 10), { headerBytes: 10, tensors: [] })
  })

  describe('of very many tensors', () => {
    const COUNT = 30_000
    const names = shuffle(seededRandom(1), Array.from({ length: COUNT }, (_, at) => at))
    const many = file(JSON.stringify(Object.fromEntries(names.map(at => [`t${at}`, tensor('U8', [1], at, at + 1)]))), COUNT)
    const metadata = file(JSON.stringify({ __metadata__: Object.fromEntries(names.map(at => [`key ${at} of the metadata`, ''])) }), 0)
    const hole = file(JSON.stringify(Object.fromEntries(names.map(at => [`t${at}`, tensor('U8', [1], at + 1, at + 2)]))), COUNT + 1)

    it('gives them by offset', async () => {
      const { tensors } = await readSafetensors(reader(many), many.length)
      assert.equal(tensors.length, COUNT)
      for (const [at, { name }] of tensors.entries()) assert.equal(name, `t${at}`)
      assert.deepEqual(parseSafetensorsHeader(many.subarray(8, many.length - COUNT), many.length), tensors)
    })

    for (const [what, bytes] of Object.entries({ tensors: many, metadata, 'tensors with a hole before them': hole })) {
      it(`lets others have their turn: ${what}`, async () => {
        let turns = 0
        let ended = false
        const reading = readSafetensors(reader(bytes), bytes.length).catch(() => undefined).finally(() => { ended = true })
        while (!ended) {
          await new Promise(resolve => { setImmediate(resolve) })
          turns++
        }
        await reading
        assert.ok(turns > bytes.length / (256 * 1024), `${turns} turns for ${bytes.length} bytes`)
      })
    }
  })

  describe('of long strings and blanks', () => {
    const LONG = 3 * MiB
    const one = JSON.stringify(tensor('U8', [1], 0, 1)).slice(1)
    const taken: Record<string, string> = {
      'a value of the metadata': `{"__metadata__":{"a":"${'x'.repeat(LONG)}","b":"c"},"t":{${one}}`,
      'a value with escapes': `{"__metadata__":{"a":"${'\\n\\u00e9'.repeat(LONG / 8)}"},"t":{${one}}`,
      'padding behind it': `{"t":{${one}}${' '.repeat(LONG)}`
    }
    for (const [what, header] of Object.entries(taken)) {
      it(`takes ${what}, and lets others have their turn`, async () => {
        const bytes = file(header, 1)
        let turns = 0
        let ended = false
        const reading = readSafetensors(reader(bytes), bytes.length).finally(() => { ended = true })
        while (!ended) {
          await new Promise(resolve => { setImmediate(resolve) })
          turns++
        }
        assert.deepEqual((await reading).tensors.map(({ name }) => name), ['t'])
        assert.ok(turns > bytes.length / (256 * 1024), `${turns} turns for ${bytes.length} bytes`)
      })
    }

    const refused: Record<string, [string, RegExp]> = {
      'a name': [`{"${'x'.repeat(LONG)}":{${one}}`, /a string of more than 1048576 bytes/],
      'a key of the metadata': [`{"__metadata__":{"${'x'.repeat(LONG)}":""},"t":{${one}}`, /a string of more than 1048576 bytes/],
      'a dtype': [`{"t":{"dtype":"${'\\n'.repeat(LONG)}"}}`, /a string of more than 1048576 bytes/],
      'blanks before a value': [`{"t":${' '.repeat(LONG)}{${one}}`, /more than 1048576 blanks/],
      'blanks before a comma': [`{"__metadata__":{}${'\n'.repeat(LONG)},"t":{${one}}`, /more than 1048576 blanks/],
      'a number': [`{"t":{"dtype":"U8","shape":[${'0'.repeat(LONG)}1]}}`, /a number beyond 2\^53 - 1/],
      'a value that does not end': [`{"__metadata__":{"a":"${'x'.repeat(LONG)}`, /does not end/]
    }
    for (const [what, [header, message]] of Object.entries(refused)) {
      it(`refuses ${what}`, () => { assert.throws(() => parse(header, 1), { name: 'InvalidSafetensorsError', message }) })
    }

    it('takes names and blanks up to the bound', () => {
      assert.equal(parse(`{"${'x'.repeat(MiB)}":${' '.repeat(MiB)}{${one}}`, 1)[0]?.name.length, MiB)
    })

    it('takes of the metadata just what is a string of JSON', () => {
      fc.assert(fc.property(fc.string({ unit: fc.constantFrom('\\', '"', 'n', 'u', 'x', '0', 'f', 'G', '/', 'é', ' ', '\n'), maxLength: 10 }), text => {
        let isString = true
        try { JSON.parse(`{"a":"${text}","b":""}`) } catch { isString = false }
        const header = `{"__metadata__":{"a":"${text}","b":""},"t":{${one}}`
        if (isString) assert.equal(parse(header, 1).length, 1)
        else assert.throws(() => parse(header, 1), { name: 'InvalidSafetensorsError' })
      }), { numRuns: 3000 })
    })
  })

  it('of a file that shrinks meanwhile is refused, and a failing disk stays itself', async () => {
    const bytes = file('{"__metadata__":{}}', 0)
    await assert.rejects(readSafetensors(reader(bytes.subarray(0, 12)), bytes.length), { name: 'InvalidSafetensorsError' })
    await assert.rejects(readSafetensors(reader(bytes.subarray(0, 3)), bytes.length), { name: 'InvalidSafetensorsError' })
    await assert.rejects(readSafetensors(async () => { throw new TypeError('disk') }, bytes.length), { name: 'TypeError' })
  })

  it('reads as JSON.parse does, and mutations never make tensors that do not cover the file', () => {
    const header = JSON.stringify({ __metadata__: { a: 'b' }, w: tensor('BF16', [4, 2], 0, 16), v: tensor('F32', [4], 16, 32) })
    fc.assert(fc.property(fc.array(fc.tuple(fc.nat(header.length - 1), fc.constantFrom(...Array.from('{}[],:"\\0123456789 abFUI'))), { minLength: 0, maxLength: 2 }), changes => {
      const characters = Array.from(header)
      for (const [at, to] of changes) characters[at] = to
      const mutated = characters.join('')
      let tensors: Tensor[]
      try { tensors = parse(mutated, 32) } catch (error) {
        assert.equal((error as Error).name, 'InvalidSafetensorsError')
        return
      }
      const parsed = JSON.parse(mutated) as Record<string, { shape: number[] }>
      for (const { name, shape } of tensors) assert.deepEqual(shape, parsed[name]?.shape)
      assert.equal(tensors.reduce((sum, { length }) => sum + length, 0), 32)
    }), { numRuns: 5000 })
  })
})
