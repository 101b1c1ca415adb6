import assert from 'node:assert/strict'
import { Grouped } from '../../../src/storage/concurrency.ts'

describe('Grouped', () => {
  const settle = async (): Promise<void> => { await new Promise(resolve => { setImmediate(resolve) }) }

  it('runs what is asked for alone at once, and together what comes meanwhile, so many at most', async () => {
    const runs: number[][] = []
    const finish: Array<() => void> = []
    const grouped = new Grouped<number, string>(3, async items => {
      runs.push(items)
      await new Promise<void>(resolve => { finish.push(resolve) })
      return items.map(item => `did ${item}`)
    })
    const all = [1, 2, 3, 4, 5].map(async item => await grouped.add(item))
    assert.deepEqual(runs, [[1]])
    for (let left = 3; left > 0; left--) { finish.shift()?.(); await settle() }
    assert.deepEqual(runs, [[1], [2, 3, 4], [5]])
    assert.deepEqual(await Promise.all(all), ['did 1', 'did 2', 'did 3', 'did 4', 'did 5'])
    const later = grouped.add(6)
    await settle()
    finish.shift()?.()
    assert.equal(await later, 'did 6')
  })

  it('lets nobody fail for another', async () => {
    const runs: number[][] = []
    const grouped = new Grouped<number, number>(10, async items => {
      runs.push(items)
      await settle()
      if (items.includes(3)) throw new Error('three')
      return items
    })
    const outcomes = await Promise.allSettled([1, 2, 3, 4].map(async item => await grouped.add(item)))
    assert.deepEqual(outcomes.map(({ status }) => status), ['fulfilled', 'fulfilled', 'rejected', 'fulfilled'])
    assert.deepEqual(runs, [[1], [2, 3, 4], [2], [3], [4]])
  })
})
