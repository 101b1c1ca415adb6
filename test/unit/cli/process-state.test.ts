import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { stateOf } from '../../../src/cli/process-state.ts'

describe('cli: the process table', () => {
  it('knows a daemon from what has ended, from a zombie and from other programs', async function () {
    if (process.platform !== 'linux') this.skip()
    assert.equal(await stateOf(process.pid), 'alive')
    assert.equal(await stateOf(2 ** 30), 'gone')
    const other = spawn('sleep', ['60'])
    // It ends when its input does. Its parent has become another program by then, which waits for no child.
    const parent = spawn('sh', ['-c', `'${process.execPath}' -e 'console.log(process.pid); process.stdin.resume()' <&0 & exec sleep 60`], { stdio: ['pipe', 'pipe', 'inherit'] })
    try {
      const [line] = await once(parent.stdout, 'data') as [Buffer]
      const child = Number(line.toString())
      assert.deepEqual(await Promise.all([child, other.pid ?? 0].map(stateOf)), ['alive', 'other'])
      parent.stdin.end()
      while (await stateOf(child) === 'alive') assert.equal(parent.exitCode, null)
      assert.equal(await stateOf(child), 'gone')
      assert.ok(process.kill(child, 0), 'it was no zombie')
    } finally {
      other.kill('SIGKILL')
      parent.kill('SIGKILL')
    }
  })
})
