import assert from 'node:assert/strict'
import { Semaphore } from '../../../src/base/index.ts'

describe('Semaphore', () => {
  const never = new AbortController().signal

  it('lets so many run at a time, in the order they came', async () => {
    const semaphore = new Semaphore(2)
    const order: number[] = []
    let running = 0
    await Promise.all(Array.from({ length: 20 }, async (_, i) => {
      await semaphore.run(async () => {
        assert.ok(++running <= 2)
        order.push(i)
        await new Promise(resolve => { setImmediate(resolve) })
        running--
      }, never)
    }))
    assert.deepEqual(order, Array.from({ length: 20 }, (_, i) => i))
  })

  it('goes on after a task that fails or gives up waiting', async () => {
    const semaphore = new Semaphore(1)
    const ended = Promise.withResolvers<void>()
    const first = semaphore.run(async () => { await ended.promise; throw new Error('failed') }, never)
    const impatient = new AbortController()
    const second = semaphore.run(async () => { assert.fail('it gave up') }, impatient.signal)
    const third = semaphore.run(async () => 'third', never)
    impatient.abort(new Error('enough'))
    await assert.rejects(second, { name: 'AbortError' })
    ended.resolve()
    await assert.rejects(first, /failed/)
    assert.equal(await third, 'third')
    assert.equal(await semaphore.run(async () => 'free again', never), 'free again')
  })
})
