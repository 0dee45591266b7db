#include "tools/backtest/page.h"

#include <math.h>

#include "tools/backtest/plot.h"

const baseline_t page_rivals[PAGE_RIVALS] = {BASELINE_NAIVE, BASELINE_EWMA, BASELINE_GARCH, BASELINE_GARCH_T};

static const char style[] =
    ":root{--bg:#f6f7f9;--card:#fff;--ink:#17202c;--soft:#5b6776;--line:#dfe4ea;--grid:#e9edf1;--accent:#2458e6;--good:#0b7a4b;"
    "--bad:#b3261e;--target:#0b7a4b1f;--naive:#7a8594;--ewma:#d17a00;--garch:#0d8f6f;--garcht:#8a3fd1;"
    "--second:#d63384}\n"
    ":root[data-theme=dark]{--bg:#0e1319;--card:#161d26;--ink:#e6ebf1;--soft:#94a1b2;--line:#2a3441;--grid:#222c38;--accent:#"
    "6d9bff;"
    "--good:#4cc38a;--bad:#ff7b72;--target:#4cc38a22;--naive:#8d99a8;--ewma:#f0a33a;--garch:#3cc9a3;--garcht:#be8bff;"
    "--second:#ff7ab8}\n"
    "*{box-sizing:border-box}\n"
    "body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.55 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif;"
    "font-variant-numeric:tabular-nums}\n"
    "main{max-width:1120px;margin:0 auto;padding:28px 20px 60px}\n"
    "h1{font-size:1.65rem;line-height:1.25;margin:0 0 6px;letter-spacing:-.01em}\n"
    "h2{font-size:1.3rem;margin:40px 0 10px;letter-spacing:-.01em}\n"
    "h3{font-size:1rem;margin:0 0 2px}\n"
    "p{margin:6px 0}.soft{color:var(--soft)}small,.note{color:var(--soft);font-size:.86rem}\n"
    ".theme{white-space:nowrap}.top{display:flex;gap:16px;justify-content:space-between;align-items:flex-start}\n"
    "button{font:inherit;color:inherit;background:none;border:1px solid var(--line);border-radius:8px;padding:3px 10px;"
    "cursor:pointer}\n"
    "button:focus-visible{outline:2px solid var(--accent);outline-offset:2px}\n"
    ".verdict{font-size:1.06rem;max-width:80ch;margin:10px 0 16px}\n"
    ".tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:14px 0}\n"
    ".tile,.card{background:var(--card);border:1px solid var(--line);border-radius:12px}\n"
    ".tile{padding:12px 14px}.tile b{display:block;font-size:1.45rem;line-height:1.3;letter-spacing:-.02em}\n"
    ".tile span{display:block;color:var(--soft);font-size:.82rem}\n"
    ".good{color:var(--good)}.bad{color:var(--bad)}\n"
    ".card{padding:16px 18px;margin:14px 0;overflow-x:auto}\n"
    ".two{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));gap:14px}.two .card{margin:0}\n"
    ".fans{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,300px),1fr));gap:14px;margin-top:8px}\n"
    ".fans figcaption{font-size:.86rem}.fans figure{margin:0}\n"
    ".scroll{overflow-x:auto}\n"
    "table{border-collapse:collapse;width:100%;font-size:.88rem;margin-top:8px}\n"
    "th,td{padding:5px 9px;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line)}\n"
    "th:first-child,td:first-child{text-align:left}\n"
    "th{color:var(--soft);font-weight:600}tr.model td{font-weight:650}tr.model td:first-child{color:var(--accent)}\n"
    "tbody tr:last-child td{border-bottom:0}th[data-sort]{cursor:pointer}\n"
    "svg{display:block;width:100%;height:auto;margin-top:8px}svg.wide{min-width:620px}\n"
    "svg text{font-size:11.5px;fill:var(--soft)}.end{text-anchor:end}.middle{text-anchor:middle}\n"
    ".grid{stroke:var(--grid);fill:none}.faint{stroke-dasharray:1 4}.reference{stroke:var(--soft);stroke-dasharray:5 4;fill:none}\n"
    ".target{fill:var(--target)}.line{fill:none;stroke:var(--c);stroke-width:1.8;stroke-linejoin:round}\n"
    ".dot{fill:var(--c);stroke:var(--card);stroke-width:1}\n"
    ".f-model{--c:var(--accent)}.f-model .line{stroke-width:3}.f-second{--c:var(--second)}.f-naive{--c:var(--naive)}"
    ".f-ewma{--c:var(--ewma)}.f-garch{--c:var(--garch)}.f-garch-t{--c:var(--garcht)}\n"
    ".keys{display:flex;flex-wrap:wrap;gap:6px;margin-top:8px}\n"
    ".key{border-radius:99px;font-size:.82rem;padding:1px 10px}.key::before{content:'';display:inline-block;width:.7em;height:.7em;"
    "border-radius:50%;background:var(--c);margin-right:6px}\n"
    ".key[aria-pressed=false]{opacity:.4}\n"
    ".band80{fill:var(--accent);opacity:.17}.band50{fill:var(--accent);opacity:.26}\n"
    ".median{fill:none;stroke:var(--accent);stroke-width:2}.past,.came{fill:none;stroke:var(--ink);stroke-width:1.4;"
    "stroke-linejoin:round}.past{opacity:.55}\n"
    ".dashed{fill:none;stroke:var(--ewma);stroke-dasharray:3 3;stroke-width:1.2}\n"
    ".tag{display:inline-block;background:var(--bad);color:var(--card);border-radius:6px;padding:0 8px;font-size:.76rem;"
    "font-weight:700;letter-spacing:.05em;vertical-align:2px}\n"
    "details{margin-top:26px}summary{cursor:pointer;font-weight:650}dt{font-weight:650;margin-top:8px}dd{margin:0}\n"
    "@media print{button.theme{display:none}.card,.tile{break-inside:avoid}}\n";

/* Theme: the system's until the button is pressed. Legend keys hide their lines; a click on a column's head sorts by it. */
static const char script[] =
    "const root=document.documentElement,dark=matchMedia('(prefers-color-scheme: dark)');\n"
    "let chosen=null;const theme=()=>root.dataset.theme=chosen||(dark.matches?'dark':'light');\n"
    "theme();dark.addEventListener('change',theme);\n"
    "addEventListener('click',e=>{\n"
    "  const t=e.target;\n"
    "  if(t.matches('.theme')){chosen=root.dataset.theme==='dark'?'light':'dark';theme()}\n"
    "  if(t.matches('.key')){const on=t.getAttribute('aria-pressed')==='false';t.setAttribute('aria-pressed',on);\n"
    "    t.closest('.card').querySelectorAll('svg .'+t.dataset.line).forEach(g=>g.style.display=on?'':'none')}\n"
    "  if(t.matches('th[data-sort]')){const body=t.closest('table').tBodies[0],i=t.cellIndex,up=t.dataset.sort!=='up';\n"
    "    t.dataset.sort=up?'up':'down';const v=r=>{const x=r.cells[i].textContent,n=parseFloat(x);return n===n?n:x};\n"
    "    [...body.rows].sort((a,b)=>(v(a)>v(b)?1:v(a)<v(b)?-1:0)*(up?1:-1)).forEach(r=>body.append(r))}\n"
    "});\n";

void page_open(const char *title, FILE *to)
{
    fputs("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
          "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<meta name=\"color-scheme\" content=\"light "
          "dark\">\n"
          "<title>",
          to);
    plot_text(title, to);
    fprintf(to, "</title>\n<style>\n%s</style>\n<script>\n%s</script>\n</head>\n<body>\n<main>\n", style, script);
}

void page_close(FILE *to)
{
    fputs("</main>\n</body>\n</html>\n", to);
}

void page_number(const page_t *page, double value, int decimals)
{
    if (isnan(value))
        fputs("<td>–</td>", page->to);
    else
        fprintf(page->to, "<td>%.*f</td>", decimals, value);
}
