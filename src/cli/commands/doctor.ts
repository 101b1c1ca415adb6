import type { Command } from 'commander'
import { action, collect } from '../context.ts'
import { EXIT } from '../exit-codes.ts'
import { printable } from '../format.ts'

const HELP = `
Each line begins with ok, warn or FAIL; what is not ok has a fix below it. Without a daemon it looks at the host alone: give it
the configuration that the daemon is to have. Run it as the daemon's user.`

export function addDoctor (program: Command): void {
  program.command('doctor')
    .description('look for what is wrong with this host and its daemon, with a fix for each; exit code 1 if anything fails')
    .option('--config <file>', 'configuration file of the daemon (default: $SHOAL_CONFIG)')
    .option('--set <key=value>', 'one configuration key, as for the daemon; may be repeated', collect)
    .addHelpText('after', HELP)
    .action(action(async (context, options: { config?: string, set?: string[] }) => {
      const [{ examine }, { loadConfig }] = await Promise.all([import('../doctor/index.ts'), import('../load-config.ts')])
      const config = await loadConfig(options, process.env)
      const { dataDirectory, socketPath } = context
      const findings = await examine({ dataDirectory, socketPath, config })
      const count = (level: string): number => findings.filter(finding => finding.level === level).length
      const [warned, failed] = [count('warn'), count('fail')]
      const lines = findings.map(({ check, level, message, fix }) => `${(level === 'fail' ? 'FAIL' : level).padEnd(4)}  ${check.padEnd(11)}  ${printable(message)}${fix === undefined ? '' : `\n      ${' '.repeat(11)}  -> ${printable(fix)}`}`)
      context.print({ ok: failed === 0, warnings: warned, failures: failed, findings }, `${lines.join('\n')}\n\n${failed === 0 && warned === 0 ? 'all is well' : `${failed} failed, ${warned} to look at`}`)
      return failed === 0 ? EXIT.done : EXIT.failed
    }))
}
