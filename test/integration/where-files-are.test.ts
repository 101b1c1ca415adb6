import assert from 'node:assert/strict'
import { cp, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { commonDirectory } from '../../src/api/common-directory.ts'
import type { ShoalNode } from '../../src/node/types.ts'
import { Cluster } from '../support/cluster.ts'
import { hashTree, temporaryDirectory, writeTree } from '../support/files.ts'

describe('where the files of a model are', () => {
  const directoryOf = async (node: ShoalNode, cid: string): Promise<string | undefined> => {
    const model = await node.open(cid)
    try {
      const { path } = await model.done
      return path ?? commonDirectory(model.files)
    } finally {
      model.close()
    }
  }

  it('is told of what was loaded, though its directory was removed', async () => {
    await using cluster = new Cluster({ transport: 'tcp' })
    await using source = await temporaryDirectory('source')
    await writeTree(source.path, { 'x/a.bin': 100_000, 'b.json': 10 })
    const [node] = await cluster.spawn(1)
    assert.ok(node !== undefined)
    const { cid } = await node.add(source.path)
    const path = await directoryOf(node, cid) ?? ''
    await rm(path, { recursive: true })
    assert.equal(await directoryOf(node, cid), path)
    assert.deepEqual(await hashTree(path), await hashTree(source.path))
  })

  it('is where each was added in place, though two share a file, and one goes', async () => {
    await using cluster = new Cluster({ transport: 'tcp' })
    await using source = await temporaryDirectory('source')
    const [base, tuned] = [join(source.path, 'base'), join(source.path, 'tuned')]
    await writeTree(base, { 'tokenizer.json': 20_000, 'model.bin': 300_000 })
    await writeTree(tuned, { 'model.bin': 300_001 })
    await cp(join(base, 'tokenizer.json'), join(tuned, 'tokenizer.json'))
    const [node] = await cluster.spawn(1)
    assert.ok(node !== undefined)
    const [one, two] = [await node.add(base, { inPlace: true, replicas: 0 }), await node.add(tuned, { inPlace: true, replicas: 0 })]
    assert.deepEqual([await directoryOf(node, one.cid), await directoryOf(node, two.cid)], [base, tuned])
    await rm(base, { recursive: true })
    await node.remove(one.cid)
    assert.equal(await directoryOf(node, two.cid), tuned)
    assert.deepEqual(await node.verify(two.cid), { blocks: 2, bytes: 320_001, bad: [], lacking: [] })
  })

  it('is said truthfully while they are away', async () => {
    await using cluster = new Cluster({ transport: 'tcp' })
    await using source = await temporaryDirectory('source')
    const [here, gone] = [join(source.path, 'here'), join(source.path, 'gone')]
    await writeTree(here, { 'model.bin': 300_000 })
    const [node] = await cluster.spawn(1)
    assert.ok(node !== undefined)
    const { cid } = await node.add(here, { inPlace: true, replicas: 0 })
    await rename(here, gone)
    await node.verify()
    const path = join(here, 'model.bin')
    assert.deepEqual((await node.show(cid)).fileList.map(({ inPlace, away, presentBlocks }) => [inPlace, away, presentBlocks]), [[false, path, 0]])
    assert.deepEqual((await node.verify()).lacking, [{ cid, bytes: 300_000, published: true, away: { files: 1, path } }])
    assert.equal((await node.status()).problems.filter(problem => problem.includes(`${path} is not there`)).length, 1)
    await rename(gone, here)
    assert.equal(await directoryOf(node, cid), here)
    await stat(path)
    assert.deepEqual((await node.status()).problems.filter(problem => problem.includes(cid)), [])
  })
})
