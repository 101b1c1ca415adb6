import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createNode } from '../../src/node/index.ts'
import { Tensors } from '../../src/node/tensors.ts'
import { publish } from '../../src/node/publish.ts'
import { systemClock } from '../../src/base/index.ts'
import { fileStore } from '../compliance/store-fixtures.ts'
import { temporaryDirectory } from '../support/files.ts'

/** A safetensors file of `count` tensors of one byte. */
function safetensors (count: number): Buffer {
  const json = JSON.stringify(Object.fromEntries(Array.from({ length: count }, (_, at) => [`t${at}`, { dtype: 'U8', shape: [1], data_offsets: [at, at + 1] }])))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(json.length))
  return Buffer.concat([length, Buffer.from(json), Buffer.alloc(count, 7)])
}

describe('the tensors of a model', () => {
  let directory: Awaited<ReturnType<typeof temporaryDirectory>>
  beforeEach(async () => { directory = await temporaryDirectory('tensors') })
  afterEach(async () => { await directory[Symbol.asyncDispose]() })

  it('are read once to be counted', async () => {
    const store = fileStore(join(directory.path, 'data'))
    await store.start()
    try {
      const source = join(directory.path, 'model.safetensors')
      await writeFile(source, safetensors(20_000))
      const { cid } = await publish({ store, clock: systemClock }, source)
      const file = store.model(cid)?.files[0]
      assert.ok(file)
      let reads = 0
      const read = store.readRange.bind(store)
      store.readRange = async (...args) => {
        reads++
        return await read(...args)
      }
      const tensors = new Tensors(store)
      assert.deepEqual(await Promise.all([tensors.count(file), tensors.count(file), tensors.count(file)]), [20_000, 20_000, 20_000])
      assert.equal(await tensors.count(file), 20_000)
      assert.equal(reads, 2, 'the length, and the header')
      assert.equal((await tensors.list(file))?.length, 20_000)
    } finally {
      await store.stop()
    }
  })

  it('are shown on demand, their number always', async () => {
    const node = await createNode({ dataDirectory: join(directory.path, 'data'), settings: { listen: ['/ip4/127.0.0.1/tcp/0'] } })
    try {
      await writeFile(join(directory.path, 'model.safetensors'), safetensors(3))
      await writeFile(join(directory.path, 'none.safetensors'), 'no header')
      const cids = [(await node.add(join(directory.path, 'model.safetensors'))).cid, (await node.add(join(directory.path, 'none.safetensors'))).cid]
      const shown = async (options: { tensors?: boolean }): Promise<unknown> => await Promise.all(cids.map(async cid => (await node.show(cid, options)).fileList.map(({ tensorCount, tensors }) => [tensorCount, tensors?.map(({ name }) => name)])))
      assert.deepEqual(await shown({ tensors: false }), [[[3, undefined]], [[0, undefined]]])
      assert.deepEqual(await shown({}), [[[3, ['t0', 't1', 't2']]], [[0, undefined]]])
    } finally {
      await node.stop()
    }
  })
})
